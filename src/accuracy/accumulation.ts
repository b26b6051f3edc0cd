import { bf16ToF32, f32ToBf16 } from "../base/bf16.ts";
import { f16ToF32, f32ToF16 } from "../base/f16.ts";
import type { Stream, StreamShape } from "./streams.ts";

/**
 * Ways to add up Σ p·c: each rounds after every addition, but for float32 sums of weights p that are rounded to bf16 first, as
 * tensor cores take them.
 */
export const accumulators = [
  "float32",
  "float32, 16 splits",
  "float32, bf16 weights",
  "bf16",
  "f16",
] as const;

/** One of {@link accumulators}. */
export type Accumulator = (typeof accumulators)[number];

/** Latent channels that are added up: enough for a stable mean, few enough to end soon. */
const CHANNELS = 8;

type Round = (value: number) => number;

const toBf16: Round = (value) => bf16ToF32(f32ToBf16(value));
const toF16: Round = (value) => f16ToF32(f32ToF16(value));
const exactly: Round = (value) => value;

/** How sums and weights are rounded, and the parts of the context that are added up apart. */
const ways: Readonly<Record<Accumulator, { round: Round; weight: Round; splits: number }>> = {
  float32: { round: Math.fround, weight: Math.fround, splits: 1 },
  "float32, 16 splits": { round: Math.fround, weight: Math.fround, splits: 16 },
  "float32, bf16 weights": { round: Math.fround, weight: toBf16, splits: 16 },
  bf16: { round: toBf16, weight: toBf16, splits: 1 },
  f16: { round: toF16, weight: toF16, splits: 1 },
};

/** Weights exp(score − highest) of the first row in float64, and channels of every token. */
function readStream(stream: Stream, { length, latentWidth, ropeWidth }: StreamShape) {
  const width = latentWidth + ropeWidth;
  const weights = new Float64Array(length);
  const values = new Float32Array(length * CHANNELS);
  stream.visit((entry, token) => {
    let dot = 0;
    for (let i = 0; i < width; i++) dot += stream.queries[i]! * entry[i]!;
    weights[token] = dot * stream.softmaxScale;
    for (let i = 0; i < CHANNELS; i++) values[token * CHANNELS + i] = entry[i]!;
  });
  const highest = weights.reduce((most, score) => Math.max(most, score), Number.NEGATIVE_INFINITY);
  return { weights: weights.map((score) => Math.exp(score - highest)), values };
}

type Read = ReturnType<typeof readStream>;

/** Adds tokens `from` … `to` up: Σ w·c of each channel, then Σ w, rounding after each product and sum. */
function addUp(
  { weights, values }: Read,
  from: number,
  to: number,
  round: Round,
  roundWeight: Round,
): Float64Array {
  const sums = new Float64Array(CHANNELS + 1);
  for (let token = from; token < to; token++) {
    const weight = roundWeight(weights[token]!);
    for (let i = 0; i < CHANNELS; i++) {
      sums[i] = round(sums[i]! + round(weight * values[token * CHANNELS + i]!));
    }
    sums[CHANNELS] = round(sums[CHANNELS]! + weight);
  }
  return sums;
}

function addInSplits(read: Read, accumulator: Accumulator): Float64Array {
  const { round, weight, splits } = ways[accumulator];
  const tokens = read.weights.length;
  const total = new Float64Array(CHANNELS + 1);
  for (let split = 0; split < splits; split++) {
    const [from, to] = [split, split + 1].map((k) => Math.floor((k * tokens) / splits)) as [number, number];
    addUp(read, from, to, round, weight).forEach((sum, i) => {
      total[i] = round(total[i]! + sum);
    });
  }
  return total;
}

/**
 * The relative error of the first row's output (eight of its channels, unrounded entries) for every way of adding up, beside
 * the same sums in float64. Computed here, not on the device: it shows what an accumulator costs.
 */
export function accumulationErrors(
  stream: Stream,
  shape: StreamShape,
): Readonly<Record<Accumulator, number>> {
  const read = readStream(stream, shape);
  const outputs = (sums: Float64Array) => sums.subarray(0, CHANNELS).map((sum) => sum / sums[CHANNELS]!);
  const exact = outputs(addUp(read, 0, shape.length, exactly, exactly));
  const size = Math.hypot(...exact);
  const errorOf = (accumulator: Accumulator) => {
    const sums = outputs(addInSplits(read, accumulator));
    return Math.hypot(...sums.map((value, i) => value - exact[i]!)) / size;
  };
  const entries = accumulators.map((accumulator) => [accumulator, errorOf(accumulator)] as const);
  return Object.fromEntries(entries) as Record<Accumulator, number>;
}
