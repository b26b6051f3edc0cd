import { describe, expect, it } from "vitest";
import type { DeviceBuffer, DeviceLimits, KernelSource, Launch } from "../../device/device.ts";
import { mlaPrefill } from "./mla-prefill.ts";

const limits = (feature: string): DeviceLimits => {
  return { memoryBytes: 80e9, computeUnits: 132, features: new Set([feature]) };
};
const hopper = limits("sm_90");

function buffer(label: string, bytes = 2 ** 40): DeviceBuffer {
  const made: DeviceBuffer = { bytes, label, slice: () => made, free: () => {} };
  return made;
}

/** What `mlaPrefill` launches on a GPU of these limits. */
function record(target: DeviceLimits, options: object) {
  const recorded: { source: KernelSource; grid: number }[] = [];
  const enqueue = (source: KernelSource, grid: number) => {
    recorded.push({ source, grid });
  };
  const launch: Launch = Object.assign(enqueue, { target: { kind: "cuda" as const, limits: target } });
  const widths = { heads: 32, nopeWidth: 128, ropeWidth: 64, valueWidth: 128, latentWidth: 512 };
  mlaPrefill(launch, {
    ...{ ...widths, maxRows: 1000, maxLen: 4000, softmaxScale: 0.1 },
    ...{ q: buffer("q"), qDtype: "bf16", out: buffer("out"), rowCount: buffer("rows") },
    ...{ blockTable: buffer("table", 4 * 2048), cacheSeqlens: buffer("length") },
    cache: { buffer: buffer("cache"), dtype: "bf16", pageSize: 64, pages: 100 },
    kvB: { buffer: buffer("kvB"), dtype: "bf16", rows: 32 * 256, columns: 512 },
    ...options,
  });
  return recorded;
}

const functionsOf = (recorded: ReturnType<typeof record>) =>
  recorded.map(({ source }) => source.cuda?.function);

describe("mlaPrefill on CUDA chooses", () => {
  it("tensor cores for 16-bit queries: one gathering, then keys, values and attention of each group of heads", () => {
    const recorded = record(hopper, {});
    expect(functionsOf(recorded)).toEqual([
      "mlaPrefillGather_bf16",
      "mlaPrefillTensorExpand_bf16",
      "mlaPrefillTensorAttend_bf16_128_64_128",
    ]);
    expect(recorded.map(({ grid }) => grid)).toEqual([4096 / 8, 132, 8 * 32]);
    for (const { source } of recorded) {
      expect(source.cuda?.sharedBytes ?? 0).toBeLessThanOrEqual(232_448);
      expect(source.cuda?.scratchBytes).toBe(4096 * 2 * (32 * 256 + 576));
    }
  });

  it("more groups of heads for longer contexts, so that the scratch memory stays under 350 MB", () => {
    const recorded = record(hopper, { maxLen: 65_536 });
    const attending = recorded.filter(({ source }) => source.name === "mla-prefill.attend");
    expect(attending).toHaveLength(4);
    expect(recorded[0]?.source.cuda?.scratchBytes).toBeLessThan(350e6);
  });

  it.each([
    ["float32 queries", hopper, { qDtype: "f32" }],
    ["an Ampere GPU", limits("sm_80"), {}],
    [
      "widths without a build",
      hopper,
      { nopeWidth: 120, kvB: { buffer: buffer("w"), dtype: "bf16", rows: 32 * 248, columns: 512 } },
    ],
    [
      "weights in another form",
      hopper,
      { kvB: { buffer: buffer("w"), dtype: "f16", rows: 32 * 256, columns: 512 } },
    ],
  ])("float32 for %s", (_name, target, options) => {
    expect(functionsOf(record(target, options)).at(-1)).toBe("mlaPrefillAttend");
  });

  it("heads that fit no block's shared memory are refused, where others take them", () => {
    const glm = {
      ...{ qDtype: "f32", heads: 20, nopeWidth: 192, valueWidth: 256 },
      kvB: { buffer: buffer("w"), dtype: "bf16", rows: 20 * 448, columns: 512 },
    };
    expect(functionsOf(record(limits("sm_80"), glm)).at(-1)).toBe("mlaPrefillAttend");
    expect(() => record(limits("sm_86"), glm)).toThrow(/heads of 192 \+ 64 and 256 are too wide/);
  });
});
