import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testDevices } from "../../../tests/fixtures/devices.ts";
import type { Device } from "../../device/device.ts";
import { CaseMemory } from "../common/cases/case-memory.ts";
import { attentionPrologueCost } from "./attention-prologue.ts";
import { attentionPrologueCases } from "./cases.ts";
import { rotateReference } from "./reference.ts";

describe.each(testDevices)("attention-prologue, $name", ({ open }) => {
  let device: Device;
  beforeAll(async () => {
    device = await open();
  });
  afterAll(() => device.close());

  it.each(attentionPrologueCases().map((one) => [one.shape, one] as const))("%s", async (_, kernelCase) => {
    const memory = new CaseMemory(device);
    for (const finding of await kernelCase.prepare().check(memory)) expect(finding.problem).toBeNull();
    memory.free();
  });
});

it("reference: a quarter turn swaps a pair", () => {
  const turned = rotateReference([1, 2, 3, 4], [Math.PI / 2, 0]);
  expect([...turned].map((value) => Number(value.toFixed(12)))).toEqual([-3, 2, 1, 4]);
});

it("costs: 3 FLOPs a rotated channel, the entry written once", () => {
  const cost = attentionPrologueCost(2, { heads: 4, kvHeads: 2, headWidth: 16 }, "bf16");
  expect(cost).toEqual({ flops: 2 * 3 * 6 * 16, bytes: 2 * (4 * 12 * 16 + 2 * 2 * 16 * 2) });
});
