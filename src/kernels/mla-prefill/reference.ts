/** Shapes as in mla-prefill.ts, for a sequence whose cache entries lie in order; weights already widened. */
export interface MlaPrefillReferenceArguments {
  /** [rows, heads, nopeWidth + ropeWidth]. */
  readonly q: ArrayLike<number>;
  /** [length, latentWidth + ropeWidth]. */
  readonly entries: ArrayLike<number>;
  readonly kvB: ArrayLike<number>;
  readonly rows: number;
  readonly length: number;
  readonly heads: number;
  readonly nopeWidth: number;
  readonly ropeWidth: number;
  readonly valueWidth: number;
  readonly latentWidth: number;
  readonly softmaxScale: number;
}

/** Rows first … first + count − 1 of W_UK or W_UV times the latent of `token`. */
function expand(args: MlaPrefillReferenceArguments, token: number, first: number, count: number): number[] {
  const { latentWidth, ropeWidth, entries, kvB } = args;
  const start = token * (latentWidth + ropeWidth);
  return Array.from({ length: count }, (_, row) => {
    let sum = 0;
    for (let c = 0; c < latentWidth; c++) sum += kvB[(first + row) * latentWidth + c]! * entries[start + c]!;
    return sum;
  });
}

/** Float64 causal attention with expanded keys and values: out [rows, heads · valueWidth]. */
export function mlaPrefillReference(args: MlaPrefillReferenceArguments): Float64Array {
  const { rows, length, heads, nopeWidth, ropeWidth, valueWidth, latentWidth } = args;
  const out = new Float64Array(rows * heads * valueWidth);
  for (let head = 0; head < heads; head++) {
    const weights = head * (nopeWidth + valueWidth);
    const keys = Array.from({ length }, (_, t) => {
      const rope = t * (latentWidth + ropeWidth) + latentWidth;
      const rotary = Array.from({ length: ropeWidth }, (_, i) => args.entries[rope + i]!);
      return [...expand(args, t, weights, nopeWidth), ...rotary];
    });
    const values = Array.from({ length }, (_, t) => expand(args, t, weights + nopeWidth, valueWidth));
    for (let row = 0; row < rows; row++) {
      const query = (row * heads + head) * (nopeWidth + ropeWidth);
      const visible = keys.slice(0, length - rows + row + 1);
      const scores = visible.map(
        (key) => args.softmaxScale * key.reduce((sum, value, i) => sum + value * args.q[query + i]!, 0),
      );
      const max = Math.max(...scores);
      const weightsOfKeys = scores.map((score) => Math.exp(score - max));
      const total = weightsOfKeys.reduce((sum, weight) => sum + weight, 0);
      weightsOfKeys.forEach((weight, t) => {
        const start = (row * heads + head) * valueWidth;
        for (let i = 0; i < valueWidth; i++) out[start + i]! += (weight / total) * values[t]![i]!;
      });
    }
  }
  return out;
}
