// The split stage: a workgroup takes one split of one sequence's key head for ROWS query rows, 128 tokens at a time with an online softmax.
// An invocation has a token's scores, then 8 channels of every GROUPS-th token's values. Buffers: q, keys, values, table, lengths,
// batchCount, partials f32 [batch, splits, sQ · heads, WIDTH], stats [.., 2] (base-2 maximum and sum; a sum of 0: nothing was seen and no
// partial written). Scalars: tableWidth, sQ, heads, kvHeads, causal, window, splits, leastSplit, softmaxScale.
#include "../common/key-value.wgsl"

@group(0) @binding(0) var<storage, read> q: array<vec4f>;
@group(0) @binding(1) var<storage, read> keys: array<vec4u>;
@group(0) @binding(2) var<storage, read> values: array<vec4u>;
@group(0) @binding(3) var<storage, read> table: array<i32>;
@group(0) @binding(4) var<storage, read> lengths: array<i32>;
@group(0) @binding(5) var<storage, read> batchCount: array<i32>;
@group(0) @binding(6) var<storage, read_write> partials: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> stats: array<vec2f>;

const TILE = 128u;
const GROUPS = TILE / EIGHTS;
/// Values that a lane has under way.
const AT_ONCE = 4u;
const PARTS = 16u;
const LOWEST = -1e30;

var<workgroup> scores: array<f32, ROWS * TILE>;
/// [row, part]: each of every PARTS-th score.
var<workgroup> maxima: array<f32, ROWS * PARTS>;
var<workgroup> weights: array<f32, ROWS * TILE>;
var<workgroup> places: array<u32, TILE>;
var<workgroup> shares: array<vec4f, 2u * TILE>;
var<workgroup> groupSums: array<f32, TILE>;

/// The workspace's row for row `row` of the task: [batch, splits, sQ · heads].
fn resultOf(task: Task, row: u32) -> u32 {
  let all = u32(scalars.sQ * scalars.heads);
  return task.sequence * u32(scalars.splits) * all + task.part * all + placeOfRow(task, row) - task.sequence * all;
}

/// The tokens of the task's split that at least one of its rows sees.
fn spanOf(task: Task, length: i32) -> vec2u {
  let lowest = visibleTo(length, 0u).x;
  let highest = visibleTo(length, u32(scalars.sQ) - 1u).y;
  let splits = u32(scalars.splits);
  let each = max(u32(scalars.leastSplit), (highest - lowest + splits - 1u) / splits);
  let begin = lowest + task.part * each;
  let last = min(task.firstRow + ROWS, spanRows()) - 1u;
  return vec2u(max(begin, visibleToRow(length, task.firstRow).x), min(begin + each, visibleToRow(length, last).y));
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let item = gridIndex(group);
  let task = taskOf(item, u32(scalars.splits));
  let length = lengthOf(task.sequence, item < scalars.grid, local);
  if (length < 0) { return; }
  let span = spanOf(task, length);
  let rows = min(ROWS, spanRows() - task.firstRow);
  if (span.x >= span.y) {
    if (local < rows) { stats[resultOf(task, task.firstRow + local)] = vec2f(LOWEST, 0.0); }
    return;
  }
  fetchQueries(task, local, TILE);
  var visible: array<vec2u, ROWS>;
  var highest: array<f32, ROWS>;
  var sum: array<f32, ROWS>;
  var low: array<vec4f, ROWS>;
  var high: array<vec4f, ROWS>;
  for (var r = 0u; r < ROWS; r++) {
    visible[r] = visibleToRow(length, task.firstRow + r);
    highest[r] = LOWEST;
    sum[r] = 0.0;
    low[r] = vec4f(0);
    high[r] = vec4f(0);
  }
  let lane = local % EIGHTS;
  let first = local / EIGHTS;
  for (var begin = span.x; begin < span.y; begin += TILE) {
    let token = begin + local;
    // A token past the last one stands for it, and weighs nothing.
    let last = min(token, span.y - 1u);
    let place = poolRow(task, table[tableAt(task, last)], last);
    var own = scoresOf(place);
    for (var r = 0u; r < ROWS; r++) {
      let isSeen = token < span.y && token >= visible[r].x && token < visible[r].y;
      own[r] = select(LOWEST, own[r], isSeen);
      scores[r * TILE + local] = own[r];
    }
    workgroupBarrier();
    places[local] = place;
    if (local < ROWS * PARTS) {
      let begin = local / PARTS * TILE + local % PARTS;
      var top = scores[begin];
      for (var i = PARTS; i < TILE; i += PARTS) { top = max(top, scores[begin + i]); }
      maxima[local] = top;
    }
    workgroupBarrier();
    for (var r = 0u; r < ROWS; r++) {
      var next = highest[r];
      for (var i = 0u; i < PARTS; i++) { next = max(next, maxima[r * PARTS + i]); }
      let factor = exp2(highest[r] - next);
      highest[r] = next;
      sum[r] *= factor;
      low[r] *= factor;
      high[r] *= factor;
      weights[r * TILE + local] = select(0.0, exp2(own[r] - next), own[r] > LOWEST);
    }
    workgroupBarrier();
    if (first < GROUPS) {
      let count = min(TILE, span.y - begin);
      for (var at = first; at < count; at += AT_ONCE * GROUPS) {
        var value: array<Eight, AT_ONCE>;
        for (var i = 0u; i < AT_ONCE; i++) { value[i] = valueEight(places[min(at + i * GROUPS, TILE - 1u)], lane); }
        for (var i = 0u; i < AT_ONCE; i++) {
          if (at + i * GROUPS >= TILE) { continue; }
          for (var r = 0u; r < ROWS; r++) {
            let weight = weights[r * TILE + at + i * GROUPS];
            sum[r] += weight;
            low[r] += weight * value[i].low;
            high[r] += weight * value[i].high;
          }
        }
      }
    }
  }
  for (var r = 0u; r < rows; r++) {
    workgroupBarrier();
    shares[local * 2u] = low[r];
    shares[local * 2u + 1u] = high[r];
    groupSums[local] = sum[r];
    workgroupBarrier();
    let result = resultOf(task, task.firstRow + r);
    for (var quad = local; quad < WIDTH / 4u; quad += TILE) {
      var total = vec4f(0);
      for (var g = 0u; g < unseen(GROUPS); g++) { total += shares[g * EIGHTS * 2u + quad]; }
      partials[result * (WIDTH / 4u) + quad] = total;
    }
    if (local == 0u) {
      var total = 0.0;
      for (var g = 0u; g < unseen(GROUPS); g++) { total += groupSums[g * EIGHTS]; }
      stats[result] = vec2f(highest[r], total);
    }
  }
}
