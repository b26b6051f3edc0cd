import { errorMessage, UserError } from "../base/errors.ts";
import type { Device } from "../device/device.ts";
import { matchesWords } from "./case.ts";
import { gpuKernelCases } from "./cases/gpu.ts";
import { bestCeilings } from "./device-ceilings.ts";
import { type GpuTiming, timeGpuCase } from "./gpu-case.ts";
import { GpuDecodeBench, type GpuDecodeShape, gpuDecodeCost } from "./gpu-decode.ts";
import { type GpuCeilings, measureGpuCeilings } from "./gpu-memory.ts";
import { threeDigits } from "./report.ts";

/** Batch, query tokens, heads, and the context lengths that are measured with them. */
const shapes: readonly (readonly [batch: number, sQ: number, heads: number, lengths: readonly number[]])[] = [
  [1, 1, 16, [512, 4096, 32_768, 131_072]],
  [4, 1, 16, [512, 4096, 32_768]],
  [16, 1, 16, [512, 4096, 32_768]],
  [64, 1, 16, [512, 1024, 4096]],
  [128, 1, 16, [1024, 4096, 32_768]],
  [1, 1, 64, [1024, 8192]],
  [32, 1, 64, [1024, 8192]],
  [128, 1, 64, [1024, 8192]],
  [1, 1, 128, [4096, 32_768, 131_072]],
  [16, 1, 128, [4096, 32_768]],
  [128, 1, 128, [4096, 16_384]],
  [128, 2, 128, [4096, 16_384]],
];

/** The cache of the largest shape, and room to spread the smaller ones over. */
const POOL_BYTES = 5.2e9;
const MOST_ROWS = 128 * 2 * 128;

/** A case's speed, beside the ceiling that binds it; rates and the share are of the cold time. */
export interface GpuCaseResult extends GpuTiming, Partial<GpuDecodeShape> {
  readonly name: string;
  readonly teraflops: number;
  readonly gigabytesPerSecond: number;
  readonly bound: "compute" | "memory";
  /** What that ceiling allows. */
  readonly floorMicroseconds: number;
  /** The floor over the cold time. */
  readonly fraction: number;
}

/** What can be measured: mla-decode over a cache of many pages, or a case of another kernel. */
export interface GpuBenchCase {
  readonly name: string;
  readonly cost: { readonly flops: number; readonly bytes: number };
  /** Of mla-decode. */
  readonly shape: GpuDecodeShape | null;
  time(bench: GpuDecodeBench, rounds: number): Promise<GpuTiming>;
}

/** A shape that was not timed: its results are wrong, or it could not be run. */
export interface GpuCaseFailure {
  readonly name: string;
  readonly reason: string;
}

/** Everything that one run on a GPU measures. */
export interface GpuBenchResult {
  readonly device: string;
  /** Measured before the first shape and after the last; the better of each. */
  readonly ceilings: GpuCeilings;
  readonly results: readonly GpuCaseResult[];
  readonly failures: readonly GpuCaseFailure[];
  readonly seconds: number;
}

/** Told of each shape when it is done; `outcome` says how it went in a few words. */
export type OnGpuCase = (name: string, done: number, outcome: string) => void;

function nameOf({ batch, sQ, heads, length }: GpuDecodeShape): string {
  return `mla-decode b=${batch} s_q=${sQ} h=${heads} d_c=512 d_r=64 s=${length} bf16`;
}

const decodeCases: readonly GpuBenchCase[] = shapes.flatMap(([batch, sQ, heads, lengths]) =>
  lengths.map((length) => {
    const shape = { batch, sQ, heads, length };
    const time = (bench: GpuDecodeBench, rounds: number) => bench.measure(shape, rounds);
    return { name: nameOf(shape), cost: gpuDecodeCost(shape), shape, time };
  }),
);

const otherCases = gpuKernelCases.map((one): GpuBenchCase => {
  const time = ({ device }: GpuDecodeBench, rounds: number) => timeGpuCase(device, one, rounds);
  return { name: one.name, cost: one.cost, shape: null, time };
});

/** Adds to a timing what `ceilings` allow. */
export function besideCeiling(
  { name, cost, shape }: Omit<GpuBenchCase, "time">,
  timing: GpuTiming,
  ceilings: GpuCeilings,
): GpuCaseResult {
  const [compute, memory] = [cost.flops / ceilings.flopsPerSecond, cost.bytes / ceilings.bytesPerSecond];
  const floorMicroseconds = Math.max(compute, memory) * 1e6;
  return {
    ...{ name, ...shape, ...timing },
    teraflops: cost.flops / timing.coldMicroseconds / 1e6,
    gigabytesPerSecond: cost.bytes / timing.coldMicroseconds / 1e3,
    bound: compute > memory ? "compute" : "memory",
    ...{ floorMicroseconds, fraction: floorMicroseconds / timing.coldMicroseconds },
  };
}

/** The cases whose names hold every word of `filter`. Throws UserError, naming the others, when there is none. */
export function chooseGpuCases(filter: string): GpuBenchCase[] {
  const all = [...decodeCases, ...otherCases];
  const chosen = all.filter(({ name }) => matchesWords(name, filter));
  if (chosen.length > 0) return chosen;
  const names = [all[0]!, ...otherCases].map(({ name }) => `  ${name}`).join("\n");
  throw new UserError(
    `No case matches ${JSON.stringify(filter)}; give words of one of these, mla-decode of other sizes included:\n${names}`,
  );
}

/** Checks and times cases on a GPU, its ceilings before and after. Throws UserError when the device has no room. */
export async function runGpuBench(
  device: Device,
  wanted: readonly GpuBenchCase[],
  rounds: number,
  onCase: OnGpuCase,
): Promise<GpuBenchResult> {
  const start = performance.now();
  const bench = await GpuDecodeBench.create(device, POOL_BYTES, MOST_ROWS);
  try {
    const first = await measureGpuCeilings(device, bench.pool);
    const timed: [GpuBenchCase, GpuTiming][] = [];
    const failures: GpuCaseFailure[] = [];
    for (const [index, one] of wanted.entries()) {
      try {
        const timing = await one.time(bench, rounds);
        timed.push([one, timing]);
        onCase(one.name, index + 1, `${threeDigits(timing.coldMicroseconds)} µs`);
      } catch (error) {
        failures.push({ name: one.name, reason: errorMessage(error) });
        onCase(one.name, index + 1, errorMessage(error));
      }
    }
    // Where a fault has taken the device, what was measured before it is kept.
    const again = await measureGpuCeilings(device, bench.pool).catch(() => null);
    const ceilings = bestCeilings(first, again);
    const results = timed.map(([one, timing]) => besideCeiling(one, timing, ceilings));
    return { device: device.name, ceilings, results, failures, seconds: (performance.now() - start) / 1e3 };
  } finally {
    bench.free();
  }
}

/** The results as rows of a table; the first is the head. */
export function gpuTableOf({ results }: Pick<GpuBenchResult, "results">): string[][] {
  const head = [
    "case",
    "cold µs",
    "warm µs",
    "floor µs",
    "TFLOPS",
    "GB/s",
    "of ceiling",
    "bound by",
    "worst error",
  ];
  const rows = results.map((result) => [
    result.name,
    threeDigits(result.coldMicroseconds),
    threeDigits(result.warmMicroseconds),
    threeDigits(result.floorMicroseconds),
    threeDigits(result.teraflops),
    threeDigits(result.gigabytesPerSecond),
    `${(100 * result.fraction).toFixed(0)} %`,
    result.bound,
    result.worstError.toExponential(1),
  ]);
  return [head, ...rows];
}
