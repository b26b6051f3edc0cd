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

/// The sum over every `lanes`-th split of four channels, split s of the row lying `stride` results after the one before. MERGE_DEPTH are under
/// way at a time; what splits that saw nothing left may be NaN, and is not even read where that many of them come together.
fn mergeSplits(row: u32, first: u32, stride: u32, splits: u32, lane: u32, lanes: u32, quads: u32, quad: u32) -> vec4f {
  var value = vec4f(0);
  for (var s = lane; s < splits; s += MERGE_DEPTH * lanes) {
    var any = 0.0;
#for i MERGE_DEPTH
    let split$i = min(s + $iu * lanes, splits - 1u);
    let factor$i = select(splitStats[row * MOST_SPLITS + split$i].x, 0.0, s + $iu * lanes >= splits);
    any = max(any, factor$i);
#endfor
    if (any == 0.0) { continue; }
#for i MERGE_DEPTH
    let part$i = partials[(first + split$i * stride) * quads + quad];
#endfor
#for i MERGE_DEPTH
    value += select(part$i * factor$i, vec4f(0), factor$i == 0.0);
#endfor
  }
  return value;
}
