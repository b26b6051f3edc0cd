// The sum of query rows' splits over `partials` (array<vec4f>) and `stats` (array<vec2f>), which the kernel declares. A workgroup merges
// up to MERGED_ROWS rows (at most WORKGROUP / 16): it puts their statistics into workgroup memory, weighs them, then sums outputs.

const MOST_SPLITS = select(64u, 128u, MERGED_ROWS == 1u);

/// [row, split]: base-2 maximum and sum, of which the first becomes the factor of the split's output: 0 where it saw no token.
var<workgroup> splitStats: array<vec2f, MERGED_ROWS * MOST_SPLITS>;
/// [row, 16]: parts of the maxima, then of the sums.
var<workgroup> statParts: array<f32, MERGED_ROWS * 16u>;
var<workgroup> sumParts: array<f32, MERGED_ROWS * 16u>;

struct MergedStats {
  /// Base-2 maximum over the splits, and the sum relative to it; 0 where no split saw a token.
  highest: f32,
  sum: f32,
}

/// Weighs the statistics of `rows` rows; a barrier has to come before.
fn weighSplits(local: u32, rows: u32, splits: u32) {
  let row = local / 16u;
  let part = local % 16u;
  if (row < rows) {
    var most = -1e30;
    for (var s = part; s < splits; s += 16u) { most = max(most, splitStats[row * MOST_SPLITS + s].x); }
    statParts[row * 16u + part] = most;
  }
  workgroupBarrier();
  if (row < rows) {
    let highest = highestOf(row);
    var sum = 0.0;
    for (var s = part; s < splits; s += 16u) {
      let one = splitStats[row * MOST_SPLITS + s];
      let factor = select(exp2(one.x - highest), 0.0, one.y == 0.0);
      splitStats[row * MOST_SPLITS + s].x = factor;
      sum += one.y * factor;
    }
    sumParts[row * 16u + part] = sum;
  }
  workgroupBarrier();
}

fn highestOf(row: u32) -> f32 {
  var highest = -1e30;
  for (var part = 0u; part < 16u; part++) { highest = max(highest, statParts[row * 16u + part]); }
  return highest;
}

fn mergedStats(row: u32) -> MergedStats {
  var sum = 0.0;
  for (var part = 0u; part < 16u; part++) { sum += sumParts[row * 16u + part]; }
  return MergedStats(highestOf(row), sum);
}

/// One split's four channels, weighed; `split` may lie past the last.
fn weighed(row: u32, first: u32, stride: u32, splits: u32, split: u32, quads: u32, quad: u32) -> vec4f {
  let s = min(split, splits - 1u);
  let factor = select(splitStats[row * MOST_SPLITS + s].x, 0.0, split >= splits);
  let part = partials[(first + s * stride) * quads + quad];
  // What a split that saw nothing left may be NaN.
  return select(part * factor, vec4f(0), factor == 0.0);
}

/// The sum over every `lanes`-th split of four channels, split s of the row lying `stride` results after the one before; several loads
/// are under way at a time.
fn mergeFour(row: u32, first: u32, stride: u32, splits: u32, lane: u32, lanes: u32, quads: u32, quad: u32) -> vec4f {
  var value = vec4f(0);
  for (var s = lane; s < splits; s += 4u * lanes) {
    let a = weighed(row, first, stride, splits, s, quads, quad);
    let b = weighed(row, first, stride, splits, s + lanes, quads, quad);
    let c = weighed(row, first, stride, splits, s + 2u * lanes, quads, quad);
    let d = weighed(row, first, stride, splits, s + 3u * lanes, quads, quad);
    value += (a + b) + (c + d);
  }
  return value;
}
