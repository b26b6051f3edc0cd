import { describe, expect, it } from "vitest";
import type { DeviceBuffer, DeviceLimits, KernelSource, Launch } from "../../device/device.ts";
import { queryDtypeOn } from "./mla-decode.cuda.ts";
import { mlaDecode } from "./mla-decode.ts";

/** An H200's numbers: 132 multiprocessors, of which 15 clusters of 8 blocks, 30 of 4 and 66 of 2 fit at the same time. */
const hopper: DeviceLimits = {
  memoryBytes: 140e9,
  computeUnits: 132,
  features: new Set(["sm_90"]),
  residentClusters: ({ cluster }) => (cluster === 8 ? 15 : cluster === 4 ? 30 : 66),
};
const ampere: DeviceLimits = { memoryBytes: 40e9, computeUnits: 108, features: new Set(["sm_80"]) };

function buffer(label: string): DeviceBuffer {
  const made: DeviceBuffer = { bytes: 2 ** 40, label, slice: () => made, free: () => {} };
  return made;
}

interface Recorded {
  readonly source: KernelSource;
  readonly grid: number;
  readonly scalars: Readonly<Record<string, number>>;
}

/** What `mlaDecode` launches on a GPU of these limits. */
function record(limits: DeviceLimits, options: object): Recorded[] {
  const recorded: Recorded[] = [];
  const enqueue = (
    source: KernelSource,
    grid: number,
    _buffers: readonly DeviceBuffer[],
    scalars: readonly number[] = [],
  ) => {
    const named = source.scalars.map(([name], i) => [name, scalars[i] ?? Number.NaN]);
    recorded.push({ source, grid, scalars: Object.fromEntries(named) });
  };
  const launch: Launch = Object.assign(enqueue, { target: { kind: "cuda" as const, limits } });
  mlaDecode(launch, {
    ...{ batch: 1, sQ: 1, heads: 16, latentWidth: 512, ropeWidth: 64, maxLen: 4096 },
    ...{ mask: "causal", blockTable: buffer("table"), maxPages: 64, cacheSeqlens: buffer("lengths") },
    ...{ q: buffer("q"), qDtype: "bf16", out: buffer("out"), outDtype: "bf16", lse: buffer("lse") },
    ...{ cache: { buffer: buffer("cache"), dtype: "bf16", pageSize: 64, pages: 100 } },
    ...{ softmaxScale: 0.1, workspace: buffer("workspace"), ...options },
  });
  return recorded;
}

describe("mlaDecode on CUDA chooses", () => {
  it.each([
    ["b=1 h=16: as many clusters as there are tiles for", {}, "mlaDecodeFewRows_bf16_512_16", 8, 64],
    ["b=16 h=16", { batch: 16 }, "mlaDecodeFewRows_bf16_512_16", 4, 120],
    ["b=64 h=16", { batch: 64 }, "mlaDecodeFewRows_bf16_512_16", 2, 132],
    ["b=128 h=16", { batch: 128 }, "mlaDecodeFewRows_bf16_512_16", 1, 132],
    ["b=1 s_q=4 h=8: two blocks of 16 rows", { sQ: 4, heads: 8 }, "mlaDecodeFewRows_bf16_512_16", 8, 112],
    ["b=128 h=32: one of 32", { batch: 128, heads: 32 }, "mlaDecodeFewRows_bf16_512_32", 1, 132],
    [
      "b=32 h=16 and little context: one cluster a sequence",
      { batch: 32, maxLen: 512, maxPages: 8 },
      "mlaDecodeFewRows_bf16_512_16",
      2,
      64,
    ],
    [
      "b=1 h=64: blocks of 16 rows",
      { heads: 64, maxLen: 1024, maxPages: 16 },
      "mlaDecodeFewRows_bf16_512_16",
      8,
      64,
    ],
    [
      "b=32 h=128 and little context: no blocks of many rows that work on two sequences",
      { batch: 32, heads: 128, maxLen: 512, maxPages: 8 },
      "mlaDecodeFewRows_bf16_512_32",
      1,
      132,
    ],
    ["b=128 h=33", { batch: 128, heads: 33 }, "mlaDecodeManyRows_bf16_512", 1, 132],
    ["b=128 h=128: pairs", { batch: 128, heads: 128 }, "mlaDecodeManyRows_bf16_512", 2, 132],
    ["b=128 h=192", { batch: 128, heads: 192 }, "mlaDecodeManyRows_bf16_512", 1, 132],
    ["d_c=256 h=3", { heads: 3, latentWidth: 256 }, "mlaDecodeFewRows_bf16_256_16", 8, 64],
    [
      "d_c=256 with 32 rotary values h=3",
      { heads: 3, latentWidth: 256, ropeWidth: 32 },
      "mlaDecodeFewRows_bf16_256_32_16",
      8,
      64,
    ],
  ])("%s: one launch, its kernel, cluster and blocks", (_name, options, name, cluster, grid) => {
    const [only, ...others] = record(hopper, options);
    expect(others).toEqual([]);
    expect(only?.source.cuda).toMatchObject({ function: name, cluster });
    expect(only?.grid).toBe(grid);
    expect(only?.source.cuda?.sharedBytes).toBeLessThanOrEqual(232_448);
  });

  it.each([
    ["an Ampere GPU", ampere, {}],
    ["indices", hopper, { mask: "indices", indices: buffer("indices") }],
    ["32 rotary values beside 512", hopper, { ropeWidth: 32 }],
    ["an fp8 cache", hopper, { cache: { buffer: buffer("c"), dtype: "fp8", pageSize: 64, pages: 100 } }],
    ["pages of 8", hopper, { maxPages: 512, cache: { buffer: buffer("c"), dtype: "bf16", pageSize: 8 } }],
    ["more sequences than a schedule holds", hopper, { batch: 513 }],
  ])("the portable kernel for %s", (_name, limits, options) => {
    const names = record(limits, options).map(({ source }) => source.name);
    expect(names).toEqual(["mla-decode.partial", "mla-decode.merge"]);
    expect(() => record(limits, { ...options, cuda: { variant: "hopper" } })).toThrow(/do not take/);
  });

  it("places for partial results: two a group, or one for every fixed split of every sequence", () => {
    const [even] = record(hopper, { batch: 2 });
    expect(even?.scalars.statsOffset).toBe(2 * 15 * 16 * 512);
    const [fixed] = record(hopper, { batch: 2, cuda: { splitTokens: 1024 } });
    expect(fixed?.scalars).toMatchObject({ splitTiles: 16, statsOffset: 2 * 4 * 16 * 512 });
    expect(fixed?.source.cuda?.cluster).toBe(4);
  });
});

describe("float32 queries on CUDA", () => {
  it.each(["f32", "f16", "bf16", "fp8"] as const)("take a cache in %s", (dtype) => {
    const cache = { buffer: buffer("c"), dtype, pageSize: 64, pages: 100 };
    const [partial, merge] = record(hopper, { cache, qDtype: "f32", outDtype: "f32" });
    expect(partial?.source.cuda?.function).toBe("mlaDecodeFloat_512_64");
    expect([partial?.grid, merge?.grid]).toEqual([2 * 16, 16]);
    expect(partial?.scalars.dtype).toBe(["f32", "f16", "bf16", "fp8"].indexOf(dtype));
    expect(partial?.source.cuda?.sharedBytes).toBeLessThanOrEqual(99 * 1024);
  });

  it("are what an f32 cache wants, and other devices", () => {
    const wanted = [
      queryDtypeOn("cpu", "f16"),
      ...(["f32", "fp8", "bf16", "f16"] as const).map((cache) => queryDtypeOn("cuda", cache)),
    ];
    expect(wanted).toEqual(["f32", "f32", "bf16", "bf16", "f16"]);
  });
});

describe("mlaDecode on CUDA refuses", () => {
  it.each([
    ["q in the other 16-bit type", { qDtype: "f16" }, /qDtype on CUDA must be one of bf16/],
    ["out in the other 16-bit type", { outDtype: "f16" }, /outDtype must be one of f32, bf16/],
    [
      "an f32 cache",
      { cache: { buffer: buffer("c"), dtype: "f32", pageSize: 64 } },
      /cache.dtype on CUDA must be/,
    ],
    ["splits that no tile ends at", { cuda: { splitTokens: 100 } }, /multiple of 64/],
  ])("%s", (_name, options, message) => {
    expect(() => record(hopper, options)).toThrow(message);
  });
});
