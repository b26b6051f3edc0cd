// The sum of a query row's splits over `partials` (array<vec4f>) and `stats` (array<vec2f>), which the kernel declares. MERGED_ROWS: rows
// that a workgroup merges at a time.

const MOST_SPLITS = 64u;

/// [row, split]: base-2 maximum and sum, then the factor of the split's output, and a sum of 0 where it saw no token.
var<workgroup> splitStats: array<vec2f, MERGED_ROWS * MOST_SPLITS>;

/// Brings one split's statistics into workgroup memory.
fn putStats(row: u32, split: u32, first: u32, stride: u32) {
  splitStats[row * MOST_SPLITS + split] = stats[first + split * stride];
}

struct MergedStats {
  /// Base-2 maximum over the splits, and the sum relative to it; 0 where no split saw a token.
  highest: f32,
  sum: f32,
}

fn mergeStats(row: u32, splits: u32) -> MergedStats {
  var merged = MergedStats(-1e30, 0.0);
  for (var s = 0u; s < splits; s++) { merged.highest = max(merged.highest, splitStats[row * MOST_SPLITS + s].x); }
  for (var s = 0u; s < splits; s++) {
    let one = splitStats[row * MOST_SPLITS + s];
    merged.sum += one.y * exp2(one.x - merged.highest);
  }
  return merged;
}

/// Four channels of the merged output: zeros where no split saw a token. What such splits left may be NaN and counts for nothing.
fn mergeFour(merged: MergedStats, row: u32, first: u32, stride: u32, splits: u32, quad: u32, quads: u32) -> vec4f {
  var value = vec4f(0);
  if (merged.sum == 0.0) { return value; }
  for (var s = 0u; s < splits; s++) {
    let one = splitStats[row * MOST_SPLITS + s];
    let part = partials[(first + s * stride) * quads + quad];
    value += exp2(one.x - merged.highest) * select(part, vec4f(0), one.y == 0.0);
  }
  return value / merged.sum;
}
