import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testDevices } from "../../../tests/fixtures/devices.ts";
import type { Device } from "../../device/device.ts";
import { CaseMemory } from "../common/cases/case-memory.ts";
import { standardAttentionCases } from "./cases.ts";
import { standardAttentionCost, standardAttentionWorkspaceBytes } from "./standard-attention.ts";

describe.each(testDevices)("standard-attention, $name", ({ open }) => {
  let device: Device;
  beforeAll(async () => {
    device = await open();
  });
  afterAll(() => device.close());

  it.each(standardAttentionCases().map((one) => [one.shape, one] as const))("%s", async (_, kernelCase) => {
    const memory = new CaseMemory(device);
    for (const finding of await kernelCase.prepare().check(memory)) expect(finding.problem).toBeNull();
    memory.free();
    expect(device.memory.usedBytes).toBe(0);
  });
});

describe("standard-attention", () => {
  const sizes = { batch: 2, sQ: 1, heads: 8, kvHeads: 8, headWidth: 64, maxLen: 1001 };

  it("keeps every score: rows of fours", () => {
    expect(standardAttentionWorkspaceBytes(sizes)).toBe(4 * 2 * 8 * 1004);
    expect(() => standardAttentionWorkspaceBytes({ ...sizes, kvHeads: 3 })).toThrow(/kvHeads/);
  });

  it("costs the cache and four passes over the scores", () => {
    const cost = standardAttentionCost(sizes, "f32", 100);
    expect(cost.flops).toBe(4 * 8 * 64 * 100);
    expect(cost.bytes).toBe(100 * 2 * 8 * 64 * 4 + 100 * 8 * 16 + 2 * 2 * 8 * 64 * 4);
  });
});
