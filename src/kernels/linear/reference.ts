/** What `linearReference` computes from. */
export interface LinearReferenceArguments {
  /** [rows, inputs], dense. */
  readonly x: ArrayLike<number>;
  /** [outputs, inputs]. */
  readonly weight: ArrayLike<number>;
  readonly bias?: ArrayLike<number> | undefined;
  readonly inputs: number;
  readonly outputs: number;
  readonly scale?: number;
}

/** Float64 scale · (x · Wᵀ + bias), [rows, outputs]. */
export function linearReference(args: LinearReferenceArguments): Float64Array {
  const { x, weight, bias, inputs, outputs, scale = 1 } = args;
  const rows = x.length / inputs;
  const out = new Float64Array(rows * outputs);
  for (let row = 0; row < rows; row++) {
    for (let output = 0; output < outputs; output++) {
      let sum = bias?.[output] ?? 0;
      for (let i = 0; i < inputs; i++) sum += x[row * inputs + i]! * weight[output * inputs + i]!;
      out[row * outputs + output] = scale * sum;
    }
  }
  return out;
}
