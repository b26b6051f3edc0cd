/** Float64 rotary embedding of one head: pairs (i, i + width / 2) turned by `angles` [width / 2] (arXiv 2104.09864, eq. 15). */
export function rotateReference(x: ArrayLike<number>, angles: readonly number[]): Float64Array {
  const half = angles.length;
  const out = new Float64Array(2 * half);
  angles.forEach((angle, i) => {
    const [a, b] = [x[i]!, x[i + half]!];
    out[i] = a * Math.cos(angle) - b * Math.sin(angle);
    out[i + half] = b * Math.cos(angle) + a * Math.sin(angle);
  });
  return out;
}
