import { describe, expect, it } from "vitest";
import { gpuDecodeCost } from "./gpu-decode.ts";
import { worstRowError } from "./gpu-decode-truth.ts";
import { gpuLayerCost } from "./gpu-layer.ts";
import { besideCeiling, chooseGpuShapes, gpuTableOf } from "./gpu-run.ts";

const shape = { batch: 2, sQ: 1, heads: 16, length: 100 };
const measured = { coldMicroseconds: 20, warmMicroseconds: 15, teraflops: 0.35, gigabytesPerSecond: 15 };

describe("bench kernel on a GPU", () => {
  it("cost: two FLOPs for each of 576 + 512 values a row and token, 16-bit cache, queries and outputs", () => {
    expect(gpuDecodeCost(shape)).toEqual({
      flops: 2 * 32 * 1088 * 100,
      bytes: 2 * 576 * 200 + 2 * 32 * 1088,
    });
  });

  it("a layer: W_UK and W_UV of 256 × 512 a head, read once, and met by every sequence", () => {
    expect(gpuLayerCost({ heads: 2, batch: 3, length: 10 })).toEqual({
      flops: 2 * 3 * (2 * 256 * 512 + 2 * 10 * 1088),
      bytes: 2 * (2 * 256 * 512 + 3 * 10 * 576),
    });
  });

  it("the floor is the longer of what both ceilings allow; the share is of the cold time", () => {
    const slow = { bytesPerSecond: 3e10, flopsPerSecond: 1e15 };
    const row = besideCeiling({ ...shape, ...measured, worstError: 1e-3 }, slow);
    const floor = (gpuDecodeCost(shape).bytes / 3e10) * 1e6;
    expect(row).toMatchObject({ bound: "memory", floorMicroseconds: floor, fraction: floor / 20 });
    const other = besideCeiling(
      { ...shape, ...measured, worstError: 1e-3 },
      { ...slow, flopsPerSecond: 1e9 },
    );
    expect(other.bound).toBe("compute");
    expect(other.floorMicroseconds).toBeCloseTo(gpuDecodeCost(shape).flops / 1e3, 6);
  });

  it("a row of the table has both times, both rates, the share and the error", () => {
    const result = { ...shape, ...measured, worstError: 1.2e-3 };
    const row = besideCeiling(result, { bytesPerSecond: 3e10, flopsPerSecond: 1e15 });
    const [head = [], cells = []] = gpuTableOf({ results: [row] });
    expect(head.slice(1, 4)).toEqual(["cold µs", "warm µs", "floor µs"]);
    expect(cells).toEqual([
      "mla-decode b=2 s_q=1 h=16 d_c=512 d_r=64 s=100 bf16",
      ...["20.0", "15.0", "10.0", "0.35", "15.0", "50 %", "memory", "1.2e-3"],
    ]);
  });

  it("a filter chooses by words of the name; none left names the form", () => {
    expect(chooseGpuShapes("")).toHaveLength(31);
    expect(chooseGpuShapes("h=128 s_q=2")).toEqual([
      { batch: 128, sQ: 2, heads: 128, length: 4096 },
      { batch: 128, sQ: 2, heads: 128, length: 16_384 },
    ]);
    expect(() => chooseGpuShapes("h=7")).toThrow(/No case matches "h=7"; a name reads "mla-decode b=1 s_q=1/);
  });

  it("errors are relative over a twentieth, the log-sum-exp counts, NaN wins", () => {
    const truth = { row: 0, out: Float64Array.of(1, 0.01), lse: 2 };
    expect(worstRowError([1.01, 0.01], 2, truth)).toBeCloseTo(0.01, 10);
    expect(worstRowError([1, 0.02], 2, truth)).toBeCloseTo(0.2, 10);
    expect(worstRowError([1, 0.01], 3, truth)).toBeCloseTo(0.5, 10);
    expect(worstRowError([1, Number.NaN], 2, truth)).toBeNaN();
  });
});
