import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { KernelCaseFile } from "../../src/cli/commands/kernel-case-file.ts";
import { mlaDecodeOperation } from "../../src/cli/commands/kernel-mla-decode.ts";
import type { Device } from "../../src/device/device.ts";
import { openDevice } from "../../src/device/open.ts";
import { readTensors } from "./golden-models.ts";
import { kernelGoldens, missingKernelGoldens, openKernelGolden, worstViolation } from "./kernel-cases.ts";

describe.each([
  ["relaxed", 2],
  ["simd", 1],
] as const)("mla-decode against golden cases, cpu %s, %i threads", (variant, threads) => {
  let device: Device;
  beforeAll(async () => {
    device = await openDevice({ kind: "cpu", variant, threads, poison: true });
  });
  afterAll(() => device.close());

  it.each(kernelGoldens)("%s: out and lse within the public tolerances, and far within", async (name) => {
    const golden = openKernelGolden(name);
    const file = await KernelCaseFile.open(golden.path);
    const expected = readTensors(golden.path);
    try {
      const [out, lse] = await (await mlaDecodeOperation.read(file)).run(device);
      for (const [output, { data, shape }] of [
        ["out", out!],
        ["lse", lse!],
      ] as const) {
        expect(shape.reduce((a, b) => a * b)).toBe(data.length);
        // Float32 throughout: a hundredth of what 16-bit implementations are allowed.
        const share = output === "out" ? 0.01 : 1;
        expect(worstViolation(output, data, expected.get(`${output}_f32`)!)).toBeLessThan(share);
      }
    } finally {
      await file.close();
      golden.close();
    }
    expect(device.memory.usedBytes).toBe(0);
  });
});

it("the judge of these tests finds what is wrong", () => {
  expect(worstViolation("out", [1, 2], [1, 2])).toBe(0);
  expect(worstViolation("out", [0, 2.1], [0, 2])).toBeGreaterThan(1);
  expect(worstViolation("out", [0, Number.NaN], [0, 2])).toBe(Infinity);
  expect(worstViolation("lse", [5, Infinity], [5, 3])).toBe(Infinity);
  expect(worstViolation("lse", [Infinity], [Infinity])).toBe(0);
  expect(worstViolation("lse", [3], [Infinity])).toBe(Infinity);
  expect(worstViolation("lse", [], [1])).toBe(Infinity);
});

describe.skipIf(missingKernelGoldens.length === 0)("cases that only FLASHMLA_GOLDEN brings", () => {
  it.skip.each(missingKernelGoldens)("%s", () => {});
});
