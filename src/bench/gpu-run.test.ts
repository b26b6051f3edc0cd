import { describe, expect, it } from "vitest";
import { openDevice } from "../device/open.ts";
import { gpuKernelCases } from "./cases/gpu.ts";
import { linearCase } from "./cases/matrices.ts";
import { timeGpuCase } from "./gpu-case.ts";
import { gpuDecodeCost } from "./gpu-decode.ts";
import { worstRowError } from "./gpu-decode-truth.ts";
import { gpuLayerCost } from "./gpu-layer.ts";
import { besideCeiling, chooseGpuCases, gpuTableOf } from "./gpu-run.ts";

const shape = { batch: 2, sQ: 1, heads: 16, length: 100 };
const timing = { coldMicroseconds: 20, warmMicroseconds: 15, worstError: 1.2e-3 };
const one = { name: "mla-decode b=2", cost: gpuDecodeCost(shape), shape };

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
    const { flops, bytes } = one.cost;
    const row = besideCeiling(one, timing, slow);
    const floor = (bytes / 3e10) * 1e6;
    expect(row).toMatchObject({ ...shape, ...timing, bound: "memory", floorMicroseconds: floor });
    expect([row.fraction, row.teraflops]).toEqual([floor / 20, flops / 2e7]);
    const other = besideCeiling(one, timing, { ...slow, flopsPerSecond: 1e9 });
    expect(other.bound).toBe("compute");
    expect(other.floorMicroseconds).toBeCloseTo(flops / 1e3, 6);
  });

  it("a row of the table has both times, both rates, the share and the error", () => {
    const row = besideCeiling(one, timing, { bytesPerSecond: 3e10, flopsPerSecond: 1e15 });
    const [head = [], cells = []] = gpuTableOf({ results: [row] });
    expect(head.slice(1, 4)).toEqual(["cold µs", "warm µs", "floor µs"]);
    expect(cells).toEqual([
      "mla-decode b=2",
      ...["20.0", "15.0", "10.0", "0.35", "15.0", "50 %", "memory", "1.2e-3"],
    ]);
  });

  it("a filter chooses by words of the name; none left names the form", () => {
    expect(chooseGpuCases("mla-decode")).toHaveLength(31);
    expect(chooseGpuCases("")).toHaveLength(31 + gpuKernelCases.length);
    expect(chooseGpuCases("b=1 h=16 s=512").map(({ shape: wanted }) => wanted?.batch)).toEqual([1]);
    expect(chooseGpuCases("h=128 s_q=2").map(({ shape: wanted }) => wanted)).toEqual([
      { batch: 128, sQ: 2, heads: 128, length: 4096 },
      { batch: 128, sQ: 2, heads: 128, length: 16_384 },
    ]);
    expect(() => chooseGpuCases("h=7")).toThrow(
      /No case matches "h=7".*\n {2}mla-decode b=1 .*\n {2}linear m=1/,
    );
  });

  it("errors are relative over a twentieth, the log-sum-exp counts, NaN wins", () => {
    const truth = { row: 0, out: Float64Array.of(1, 0.01), lse: 2 };
    expect(worstRowError([1.01, 0.01], 2, truth)).toBeCloseTo(0.01, 10);
    expect(worstRowError([1, 0.02], 2, truth)).toBeCloseTo(0.2, 10);
    expect(worstRowError([1, 0.01], 3, truth)).toBeCloseTo(0.5, 10);
    expect(worstRowError([1, Number.NaN], 2, truth)).toBeNaN();
  });

  it("a case is checked, then timed cold and warm, and its memory given back; a wrong one is not timed", async () => {
    const device = await openDevice({ kind: "cpu", threads: 1 });
    const small = linearCase({ rows: 2, inputs: 64, outputs: 48, dtype: "bf16" });
    const { coldMicroseconds, warmMicroseconds, worstError } = await timeGpuCase(device, small, 3);
    expect(Math.min(coldMicroseconds, warmMicroseconds)).toBeGreaterThan(0);
    expect(worstError).toBeLessThan(2e-5);
    await expect(timeGpuCase(device, { ...small, tolerance: -1 }, 3)).rejects.toThrow(/not timed because/);
    expect(device.memory.usedBytes).toBe(0);
    await device.close();
  });
});
