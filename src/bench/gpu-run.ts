import { UserError } from "../base/errors.ts";
import type { Device } from "../device/device.ts";
import { GpuDecodeBench, type GpuDecodeResult, type GpuDecodeShape, gpuDecodeCost } from "./gpu-decode.ts";
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

/** A shape's speed, beside the ceiling that binds it. */
export interface GpuCaseResult extends GpuDecodeResult {
  readonly name: string;
  readonly bound: "compute" | "memory";
  /** Floor by that ceiling over the cold time. */
  readonly fraction: number;
}

/** Everything that one run on a GPU measures. */
export interface GpuBenchResult {
  readonly device: string;
  readonly ceilings: GpuCeilings;
  readonly results: readonly GpuCaseResult[];
}

function nameOf({ batch, sQ, heads, length }: GpuDecodeShape): string {
  return `mla-decode b=${batch} s_q=${sQ} h=${heads} d_c=512 d_r=64 s=${length} bf16`;
}

function besideCeiling(result: GpuDecodeResult, ceilings: GpuCeilings): GpuCaseResult {
  const { flops, bytes } = gpuDecodeCost(result);
  const [compute, memory] = [flops / ceilings.flopsPerSecond, bytes / ceilings.bytesPerSecond];
  const fraction = Math.max(compute, memory) / (result.coldMicroseconds / 1e6);
  return { ...result, name: nameOf(result), bound: compute > memory ? "compute" : "memory", fraction };
}

/** The shapes whose names hold every word of `filter`. Throws UserError when there is none. */
export function chooseGpuShapes(filter: string): GpuDecodeShape[] {
  const all = shapes.flatMap(([batch, sQ, heads, lengths]) =>
    lengths.map((length) => ({ batch, sQ, heads, length })),
  );
  const words = filter.split(/\s+/);
  const chosen = all.filter((shape) => words.every((word) => nameOf(shape).includes(word)));
  if (chosen.length > 0) return chosen;
  throw new UserError(
    `No case matches ${JSON.stringify(filter)}; a name reads ${JSON.stringify(nameOf(all[0]!))}.`,
  );
}

/** Checks and times mla-decode on a GPU, after its ceilings. Throws RangeError when a result is wrong. */
export async function runGpuBench(
  device: Device,
  wanted: readonly GpuDecodeShape[],
  rounds: number,
  onCase: (name: string, index: number) => void,
): Promise<GpuBenchResult> {
  const bench = await GpuDecodeBench.create(device, POOL_BYTES, MOST_ROWS);
  const ceilings = await measureGpuCeilings(device, bench.pool);
  const results: GpuCaseResult[] = [];
  for (const [index, shape] of wanted.entries()) {
    onCase(nameOf(shape), index);
    results.push(besideCeiling(await bench.measure(shape, rounds), ceilings));
  }
  return { device: device.name, ceilings, results };
}

/** The results as rows of a table; the first is the head. */
export function gpuTableOf({ results }: GpuBenchResult): string[][] {
  const head = ["case", "cold µs", "warm µs", "TFLOPS", "GB/s", "of ceiling", "bound by", "worst error"];
  const rows = results.map((result) => [
    result.name,
    threeDigits(result.coldMicroseconds),
    threeDigits(result.warmMicroseconds),
    threeDigits(result.teraflops),
    threeDigits(result.gigabytesPerSecond),
    `${(100 * result.fraction).toFixed(0)} %`,
    result.bound,
    result.worstError.toExponential(1),
  ]);
  return [head, ...rows];
}
