// The sum of a query row's splits over `partials` (array<vec4f>) and `stats` (array<vec2f>), which the kernel declares.

struct MergedStats {
  /// Base-2 maximum over the splits, and the sum relative to it; 0 where no split saw a token.
  highest: f32,
  sum: f32,
}

/// Split s of a row lies `stride` results after the one before; `first` is split 0.
fn mergeStats(first: u32, stride: u32, splits: u32) -> MergedStats {
  var merged = MergedStats(-1e30, 0.0);
  for (var s = 0u; s < splits; s++) { merged.highest = max(merged.highest, stats[first + s * stride].x); }
  for (var s = 0u; s < splits; s++) {
    let one = stats[first + s * stride];
    merged.sum += one.y * exp2(one.x - merged.highest);
  }
  return merged;
}

/// Four channels of the merged output: zeros where no split saw a token. What such splits left is not read.
fn mergeFour(merged: MergedStats, first: u32, stride: u32, splits: u32, quad: u32, quads: u32) -> vec4f {
  var value = vec4f(0);
  if (merged.sum == 0.0) { return value; }
  for (var s = 0u; s < splits; s++) {
    let one = stats[first + s * stride];
    if (one.y == 0.0) { continue; }
    value += exp2(one.x - merged.highest) * partials[(first + s * stride) * quads + quad];
  }
  return value / merged.sum;
}
