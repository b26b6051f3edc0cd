import type { Stream, StreamShape } from "./streams.ts";

/** Attention of every row in float64. */
export interface AttentionTruth {
  /** [heads, d_c] */
  readonly out: Float64Array;
  /** [heads] */
  readonly lse: Float64Array;
}

/**
 * out = Σ softmax(scale · q·k)·c and its log-sum-exp over the unrounded entries of `stream`, all in float64, in one pass that
 * rescales when a larger score appears. The tests hold it against the kernel's own reference.
 */
export function attentionTruth(
  stream: Stream,
  { latentWidth, ropeWidth, heads }: StreamShape,
): AttentionTruth {
  const width = latentWidth + ropeWidth;
  const queries = Float64Array.from(stream.queries);
  const key = new Float64Array(width);
  const out = new Float64Array(heads * latentWidth);
  const highest = new Float64Array(heads).fill(Number.NEGATIVE_INFINITY);
  const sums = new Float64Array(heads);
  stream.visit((entry) => {
    key.set(entry);
    for (let row = 0; row < heads; row++) {
      let dot = 0;
      for (let i = 0, q = row * width; i < width; i++, q++) dot += queries[q]! * key[i]!;
      const score = dot * stream.softmaxScale;
      const start = row * latentWidth;
      if (score > highest[row]!) {
        const factor = Math.exp(highest[row]! - score);
        for (let i = start; i < start + latentWidth; i++) out[i]! *= factor;
        sums[row]! *= factor;
        highest[row] = score;
      }
      const weight = Math.exp(score - highest[row]!);
      sums[row]! += weight;
      for (let i = 0; i < latentWidth; i++) out[start + i]! += weight * key[i]!;
    }
  });
  const lse = highest.map((most, row) => most + Math.log(sums[row]!));
  return { out: out.map((value, i) => value / sums[Math.floor(i / latentWidth)]!), lse };
}
