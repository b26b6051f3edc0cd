import type { Stream, StreamShape } from "./streams.ts";

/** Attention of every row in float64. */
export interface AttentionTruth {
  /** [heads, d_c] */
  readonly out: Float64Array;
  /** [heads] */
  readonly lse: Float64Array;
}

/** Four sums at a time: one alone waits for itself. `width` is a multiple of 4. */
function dot(queries: Float64Array, start: number, key: Float64Array, width: number): number {
  let [a, b, c, d] = [0, 0, 0, 0];
  for (let i = 0, q = start; i < width; i += 4, q += 4) {
    a += queries[q]! * key[i]!;
    b += queries[q + 1]! * key[i + 1]!;
    c += queries[q + 2]! * key[i + 2]!;
    d += queries[q + 3]! * key[i + 3]!;
  }
  return a + b + c + d;
}

function addScaled(out: Float64Array, start: number, key: Float64Array, width: number, weight: number): void {
  for (let i = 0; i < width; i++) out[start + i]! += weight * key[i]!;
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
      const score = dot(queries, row * width, key, width) * stream.softmaxScale;
      const start = row * latentWidth;
      if (score > highest[row]!) {
        const factor = Math.exp(highest[row]! - score);
        for (let i = start; i < start + latentWidth; i++) out[i]! *= factor;
        sums[row]! *= factor;
        highest[row] = score;
      }
      const weight = Math.exp(score - highest[row]!);
      sums[row]! += weight;
      addScaled(out, start, key, latentWidth, weight);
    }
  });
  const lse = highest.map((most, row) => most + Math.log(sums[row]!));
  return { out: out.map((value, i) => value / sums[Math.floor(i / latentWidth)]!), lse };
}
