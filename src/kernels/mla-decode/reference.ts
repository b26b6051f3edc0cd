/** One query row and the cached tokens it may see. */
export interface MlaRow {
  /** [d_c + d_r]. */
  readonly query: ArrayLike<number>;
  /** Each [d_c + d_r]: the key; its first d_c values are the value. */
  readonly tokens: readonly ArrayLike<number>[];
  readonly latentWidth: number;
  readonly softmaxScale: number;
}

/**
 * Float64 attention of one row in absorbed form (DeepSeek-V2, arXiv 2405.04434, section 2.1): out = Σ p·c, lse = ln Σ
 * exp(score). Out is 0 and lse +∞ where there is no token.
 */
export function mlaRowReference(row: MlaRow): { out: Float64Array; lse: number } {
  const { query, tokens, latentWidth, softmaxScale } = row;
  const out = new Float64Array(latentWidth);
  if (tokens.length === 0) return { out, lse: Number.POSITIVE_INFINITY };
  const scores = tokens.map((token) => {
    let dot = 0;
    for (let i = 0; i < query.length; i++) dot += query[i]! * token[i]!;
    return dot * softmaxScale;
  });
  const highest = scores.reduce((most, score) => Math.max(most, score), Number.NEGATIVE_INFINITY);
  let sum = 0;
  scores.forEach((score, t) => {
    const p = Math.exp(score - highest);
    sum += p;
    for (let i = 0; i < latentWidth; i++) out[i]! += p * tokens[t]![i]!;
  });
  for (let i = 0; i < latentWidth; i++) out[i]! /= sum;
  return { out, lse: highest + Math.log(sum) };
}

/** A decode over the paged cache, everything as plain numbers. */
export interface MlaDecodeReferenceArguments {
  /** [batch, sQ, heads, d_c + d_r]. */
  readonly q: ArrayLike<number>;
  /** The values [d_c + d_r] of the entry at a slot, page · pageSize + offset. */
  readonly entry: (slot: number) => ArrayLike<number>;
  /** The slots that token `j` of `sequence` sees. */
  readonly slots: (sequence: number, j: number) => readonly number[];
  readonly batch: number;
  readonly sQ: number;
  readonly heads: number;
  readonly latentWidth: number;
  readonly ropeWidth: number;
  readonly softmaxScale: number;
}

/** {@link mlaRowReference} of every row: out [batch, sQ, heads, d_c] and lse [batch, sQ, heads]. */
export function mlaDecodeReference(args: MlaDecodeReferenceArguments): {
  out: Float64Array;
  lse: Float64Array;
} {
  const { batch, sQ, heads, latentWidth, softmaxScale } = args;
  const width = latentWidth + args.ropeWidth;
  const out = new Float64Array(batch * sQ * heads * latentWidth);
  const lse = new Float64Array(batch * sQ * heads);
  const q = Float64Array.from(args.q);
  for (let row = 0; row < lse.length; row++) {
    const token = Math.floor(row / heads);
    const tokens = args.slots(Math.floor(token / sQ), token % sQ).map(args.entry);
    const query = q.subarray(row * width, (row + 1) * width);
    const result = mlaRowReference({ query, tokens, latentWidth, softmaxScale });
    out.set(result.out, row * latentWidth);
    lse[row] = result.lse;
  }
  return { out, lse };
}

/** The slots of causal or full attention: the first `length` tokens (less what token `j` of `sQ` may not see). */
export function visibleSlots(options: {
  readonly blockTable: ArrayLike<number>;
  readonly length: number;
  readonly pageSize: number;
  readonly hidden: number;
}): number[] {
  const { blockTable, length, pageSize, hidden } = options;
  return Array.from({ length: Math.max(0, length - hidden) }, (_, t) => {
    return blockTable[Math.floor(t / pageSize)]! * pageSize + (t % pageSize);
  });
}
