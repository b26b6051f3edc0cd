/** Sizes and weights of `gatedMlpReference`. */
export interface GatedMlpReferenceArguments {
  /** [rows, hidden]. */
  readonly x: ArrayLike<number>;
  /** [intermediate, hidden]. */
  readonly gate: ArrayLike<number>;
  /** [intermediate, hidden]. */
  readonly up: ArrayLike<number>;
  /** [hidden, intermediate]. */
  readonly down: ArrayLike<number>;
  readonly hidden: number;
  readonly intermediate: number;
}

const dot = (a: ArrayLike<number>, aStart: number, b: ArrayLike<number>, bStart: number, length: number) => {
  let sum = 0;
  for (let i = 0; i < length; i++) sum += a[aStart + i]! * b[bStart + i]!;
  return sum;
};

/** Float64 down · (silu(gate · x) · (up · x)) of each row: SwiGLU of Shazeer 2020, eq. 6. */
export function gatedMlpReference(args: GatedMlpReferenceArguments): Float64Array {
  const { x, gate, up, down, hidden, intermediate } = args;
  const out = new Float64Array(x.length);
  for (let row = 0; row < x.length / hidden; row++) {
    const inner = new Float64Array(intermediate);
    for (let i = 0; i < intermediate; i++) {
      const g = dot(gate, i * hidden, x, row * hidden, hidden);
      inner[i] = (g / (1 + Math.exp(-g))) * dot(up, i * hidden, x, row * hidden, hidden);
    }
    for (let i = 0; i < hidden; i++)
      out[row * hidden + i] = dot(down, i * intermediate, inner, 0, intermediate);
  }
  return out;
}
