/** One query row and the keys and values of the tokens it may see. */
export interface AttentionRow {
  /** [headWidth]. */
  readonly query: ArrayLike<number>;
  /** Each [headWidth]. */
  readonly keys: readonly ArrayLike<number>[];
  /** Each [headWidth], as many as keys. */
  readonly values: readonly ArrayLike<number>[];
  readonly softmaxScale: number;
}

/**
 * Float64 attention of one row (Vaswani et al. 2017, eq. 1): out = Σ p·v, lse = ln Σ exp(scale · q·k). Out is 0 and lse +∞
 * where there is no token.
 */
export function attentionRowReference(row: AttentionRow): { out: Float64Array; lse: number } {
  const { query, keys, values, softmaxScale } = row;
  const out = new Float64Array(query.length);
  if (keys.length === 0) return { out, lse: Number.POSITIVE_INFINITY };
  const scores = keys.map((key) => {
    let dot = 0;
    for (let i = 0; i < query.length; i++) dot += query[i]! * key[i]!;
    return dot * softmaxScale;
  });
  const highest = scores.reduce((most, score) => Math.max(most, score), Number.NEGATIVE_INFINITY);
  let sum = 0;
  scores.forEach((score, t) => {
    const p = Math.exp(score - highest);
    sum += p;
    for (let i = 0; i < out.length; i++) out[i]! += p * values[t]![i]!;
  });
  for (let i = 0; i < out.length; i++) out[i]! /= sum;
  return { out, lse: highest + Math.log(sum) };
}

/** Positions that query token `token` of `sQ` sees in a sequence of `length` tokens: `from` to before `to`. */
export function visiblePositions(options: {
  readonly length: number;
  readonly sQ: number;
  readonly token: number;
  readonly mask: "causal" | "full";
  readonly window?: number | undefined;
}): { from: number; to: number } {
  const { length, sQ, token, mask, window = Number.POSITIVE_INFINITY } = options;
  const to = Math.max(0, mask === "causal" ? length - sQ + 1 + token : length);
  return { from: Math.max(0, to - window), to };
}
