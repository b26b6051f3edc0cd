import { describe, expect, it } from "vitest";
import type { DeviceBuffer, DeviceLimits, KernelSource, Launch } from "../../device/device.ts";
import { type MlaLayerArguments, mlaLayer, prefersMlaLayer, refusesMlaLayer } from "./mla-layer.ts";

const hopper: DeviceLimits = { memoryBytes: 80e9, computeUnits: 132, features: new Set(["sm_90"]) };
const ampere: DeviceLimits = { memoryBytes: 40e9, computeUnits: 108, features: new Set(["sm_80"]) };

function buffer(label: string): DeviceBuffer {
  const made: DeviceBuffer = { bytes: 2 ** 34, label, slice: () => made, free: () => {} };
  return made;
}

function shape(options: Partial<MlaLayerArguments> = {}): MlaLayerArguments {
  const heads = options.heads ?? 128;
  const names = ["q", "latent", "normWeight", "positions", "rotaryTable", "slots", "blockTable"] as const;
  const others = ["cacheSeqlens", "out", "rowCount"] as const;
  const buffers = Object.fromEntries([...names, ...others].map((name) => [name, buffer(name)]));
  return {
    ...(buffers as Pick<MlaLayerArguments, (typeof names)[number] | (typeof others)[number]>),
    ...{ epsilon: 1e-6, rotary: "interleaved", queryScale: null, maxPages: 64, softmaxScale: 0.1 },
    kvB: { buffer: buffer("kvB"), dtype: "bf16", rows: heads * 256, columns: 512 },
    cache: { buffer: buffer("cache"), dtype: "bf16", pageSize: 64, pages: 100 },
    ...{ maxRows: 1, heads, nopeWidth: 128, ropeWidth: 64, valueWidth: 128, latentWidth: 512 },
    ...options,
  };
}

const target = (limits: DeviceLimits): Launch["target"] => ({ kind: "cuda", limits });

/** The one launch that `mlaLayer` makes. */
function record(args: MlaLayerArguments, limits = hopper) {
  const launches: { source: KernelSource; grid: number; scalars: Record<string, number> }[] = [];
  const enqueue = (
    source: KernelSource,
    grid: number,
    buffers: readonly DeviceBuffer[],
    scalars: readonly number[] = [],
  ) => {
    expect(buffers).toHaveLength(source.buffers.length);
    expect(scalars).toHaveLength(source.scalars.length);
    const named = source.scalars.map(([name], i) => [name, scalars[i]!]);
    launches.push({ source, grid, scalars: Object.fromEntries(named) });
  };
  mlaLayer(Object.assign(enqueue, { target: target(limits) }) as Launch, args);
  expect(launches).toHaveLength(1);
  return launches[0]!;
}

describe("mlaLayer", () => {
  it.each([
    ["128 heads: 33 blocks for each 32 of them", {}, 4, 33],
    ["40 heads", { heads: 40 }, 2, 66],
    ["16 heads", { heads: 16 }, 1, 132],
    ["132 heads", { heads: 132 }, 5, 26],
  ] as const)("shares tokens out over the multiprocessors: %s", (_, options, rowBlocks, groups) => {
    const { grid, scalars, source } = record(shape(options));
    expect(grid).toBe(132);
    expect(scalars).toMatchObject({ rowBlocks, groups });
    // Words: marks, a head's query of 576 16-bit values, and partial results of 32 rows of 512 16-bit values and two floats,
    // one more of them for each sequence or group.
    const counters = 64 + scalars.heads! * 288 + (1 + groups) * rowBlocks * 32 * (256 + 2);
    expect(source.cuda).toMatchObject({ counters, function: "mlaLayer_bf16" });
    expect(source.cuda?.sharedBytes).toBeLessThanOrEqual(232448);
  });

  it.each([
    ["weights that differ from the cache", { cache: { ...shape().cache, dtype: "f16" } }, /weights in bf16/],
    ["fp8", { cache: { ...shape().cache, dtype: "fp8" } }, /a cache in fp8/],
    ["pages shorter than a tile", { cache: { ...shape().cache, pageSize: 32 } }, /pages of 32/],
    ["more heads than multiprocessors", { heads: 133 }, /133 heads on 132 multiprocessors/],
    ["other widths", { latentWidth: 256 }, /latentWidth 256/],
    ["more than 32 sequences", { maxRows: 33 }, /a batch of 33/],
  ] as const)("refuses %s, in words", (_, options, words) => {
    expect(refusesMlaLayer(target(hopper), shape(options))).toMatch(words);
    expect(() => record(shape(options))).toThrow(words);
  });

  it("refuses other devices", () => {
    expect(refusesMlaLayer(target(ampere), shape())).toMatch(/Hopper/);
    expect(refusesMlaLayer({ kind: "cpu", limits: hopper }, shape())).toMatch(/Hopper/);
  });

  it("refuses buffers that are too small", () => {
    const small = { ...buffer("q"), bytes: 100 };
    expect(() => record(shape({ q: small }))).toThrow(
      "q: expected a buffer of at least 98304 bytes, got 100",
    );
  });

  it("is preferred where it was faster", () => {
    expect(prefersMlaLayer(target(hopper), shape())).toBe(true);
    expect(prefersMlaLayer(target(hopper), shape({ heads: 16 }))).toBe(false);
    expect(prefersMlaLayer(target(hopper), shape({ maxRows: 8 }))).toBe(true);
    expect(prefersMlaLayer(target(hopper), shape({ maxRows: 8, maxPages: 128 }))).toBe(false);
    expect(prefersMlaLayer(target(hopper), shape({ maxRows: 9 }))).toBe(false);
    expect(prefersMlaLayer(target(ampere), shape())).toBe(false);
  });
});
