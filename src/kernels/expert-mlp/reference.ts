/** Sizes, weights and choices of `expertMlpReference`. */
export interface ExpertMlpReferenceArguments {
  /** [rows, hidden]. */
  readonly x: ArrayLike<number>;
  /** [rows, perToken]. */
  readonly ids: ArrayLike<number>;
  /** [rows, perToken]. */
  readonly weights: ArrayLike<number>;
  /** [experts, intermediate, hidden]. */
  readonly gate: ArrayLike<number>;
  /** [experts, intermediate, hidden]. */
  readonly up: ArrayLike<number>;
  /** [experts, hidden, intermediate]. */
  readonly down: ArrayLike<number>;
  readonly hidden: number;
  readonly intermediate: number;
}

const dot = (a: ArrayLike<number>, aStart: number, b: ArrayLike<number>, bStart: number, length: number) => {
  let sum = 0;
  for (let i = 0; i < length; i++) sum += a[aStart + i]! * b[bStart + i]!;
  return sum;
};

/** Float64 Σ weight · down · (silu(gate · x) · (up · x)) over each row's experts (arXiv 2401.06066, eq. 9 and 10). */
export function expertMlpReference(args: ExpertMlpReferenceArguments): Float64Array {
  const { x, ids, weights, gate, up, down, hidden, intermediate } = args;
  const out = new Float64Array(x.length);
  const perToken = (ids.length * hidden) / x.length;
  for (let pair = 0; pair < ids.length; pair++) {
    const row = Math.floor(pair / perToken);
    const base = ids[pair]! * intermediate * hidden;
    const inner = Float64Array.from({ length: intermediate }, (_, i) => {
      const g = dot(gate, base + i * hidden, x, row * hidden, hidden);
      return (g / (1 + Math.exp(-g))) * dot(up, base + i * hidden, x, row * hidden, hidden);
    });
    for (let i = 0; i < hidden; i++) {
      const value = dot(down, base + i * intermediate, inner, 0, intermediate);
      out[row * hidden + i]! += weights[pair]! * value;
    }
  }
  return out;
}
