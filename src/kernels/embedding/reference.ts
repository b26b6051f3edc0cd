/** Row `ids[r]` of `table` [vocab, hidden] times `scale`, for each r; zeros for an id outside the table. */
export function embeddingReference(
  ids: ArrayLike<number>,
  table: ArrayLike<number>,
  hidden: number,
  scale: number,
): Float64Array {
  const vocab = table.length / hidden;
  const out = new Float64Array(ids.length * hidden);
  for (let row = 0; row < ids.length; row++) {
    const id = ids[row]!;
    if (id < 0 || id >= vocab) continue;
    for (let i = 0; i < hidden; i++) out[row * hidden + i] = table[id * hidden + i]! * scale;
  }
  return out;
}
