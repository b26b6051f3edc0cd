/** Float64 RMS norm of each row of `x` [rows, width]: x / √(mean(x²) + ε) · weight (Zhang & Sennrich 2019, eq. 4). */
export function rmsNormReference(
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  epsilon: number,
): Float64Array {
  const width = weight.length;
  const out = new Float64Array(x.length);
  for (let row = 0; row < x.length / width; row++) {
    let squares = 0;
    for (let i = 0; i < width; i++) squares += x[row * width + i]! ** 2;
    const scale = 1 / Math.sqrt(squares / width + epsilon);
    for (let i = 0; i < width; i++) out[row * width + i] = x[row * width + i]! * scale * weight[i]!;
  }
  return out;
}
