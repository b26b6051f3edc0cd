/** The splits of one query row: unnormalised outputs, base-2 maxima and sums. */
export interface SplitRow {
  /** One [d_c] a split: Σ 2^(score − max)·c. Not read where the sum is 0. */
  readonly outs: readonly ArrayLike<number>[];
  readonly maxima: readonly number[];
  readonly sums: readonly number[];
}

/**
 * Float64 merge of a row's splits and its projection by W_UV [d_v, d_c]: v = W_UV·(Σ 2^max_s·out_s / Σ 2^max_s·sum_s);
 * zeros where every sum is 0.
 */
export function mlaEpilogueReference(row: SplitRow, projection: readonly ArrayLike<number>[]): Float64Array {
  const seen = row.sums.flatMap((sum, s) => (sum === 0 ? [] : [s]));
  const highest = seen.reduce((most, s) => Math.max(most, row.maxima[s]!), Number.NEGATIVE_INFINITY);
  const latent = new Float64Array(projection[0]?.length ?? 0);
  let total = 0;
  for (const s of seen) {
    const factor = 2 ** (row.maxima[s]! - highest);
    total += factor * row.sums[s]!;
    for (let i = 0; i < latent.length; i++) latent[i]! += factor * row.outs[s]![i]!;
  }
  return Float64Array.from(projection, (weights) => {
    let dot = 0;
    for (let i = 0; i < latent.length; i++) dot += weights[i]! * latent[i]!;
    return total === 0 ? 0 : dot / total;
  });
}
