// Probabilities times values: a workgroup takes 32 channels of one sequence's key head for ROWS query rows; four invocations share a token.
// Buffers: values, table, lengths, batchCount, scores, out; scalars: tableWidth, sQ, heads, kvHeads, causal, window, parts (of 32 channels),
// stride.
#include "../common/key-value.wgsl"

@group(0) @binding(0) var<storage, read> values: array<vec4u>;
@group(0) @binding(1) var<storage, read> table: array<i32>;
@group(0) @binding(2) var<storage, read> lengths: array<i32>;
@group(0) @binding(3) var<storage, read> batchCount: array<i32>;
@group(0) @binding(4) var<storage, read> scores: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4f>;

const LANES = 4u;
const GROUPS = WORKGROUP / LANES;
/// Tokens that a lane has under way.
const AT_ONCE = 4u;

var<workgroup> shares: array<vec4f, 2u * WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let item = gridIndex(group);
  let task = taskOf(item, u32(scalars.parts));
  let length = lengthOf(task.sequence, item < scalars.grid, local);
  if (length < 0) { return; }
  let rows = min(ROWS, spanRows() - task.firstRow);
  let to = visibleToRow(length, task.firstRow + rows - 1u).y;
  let begin = visibleToRow(length, task.firstRow).x;
  let eighth = task.part * LANES + local % LANES;
  let readable = min(eighth, EIGHTS - 1u);
  var base: array<u32, ROWS>;
  var low: array<vec4f, ROWS>;
  var high: array<vec4f, ROWS>;
  for (var r = 0u; r < ROWS; r++) {
    base[r] = placeOfRow(task, task.firstRow + min(r, rows - 1u)) * u32(scalars.stride);
    low[r] = vec4f(0);
    high[r] = vec4f(0);
  }
  for (var t = begin + local / LANES; t < to; t += AT_ONCE * GROUPS) {
    var value: array<Eight, AT_ONCE>;
    for (var i = 0u; i < AT_ONCE; i++) {
      let token = min(t + i * GROUPS, to - 1u);
      value[i] = valueEight(poolRow(task, table[tableAt(task, token)], token), readable);
    }
    for (var i = 0u; i < AT_ONCE; i++) {
      let token = t + i * GROUPS;
      if (token >= to) { continue; }
      for (var r = 0u; r < ROWS; r++) {
        let weight = scores[base[r] + token];
        low[r] += weight * value[i].low;
        high[r] += weight * value[i].high;
      }
    }
  }
  for (var r = 0u; r < rows; r++) {
    workgroupBarrier();
    shares[local * 2u] = low[r];
    shares[local * 2u + 1u] = high[r];
    workgroupBarrier();
    let quad = task.part * LANES * 2u + local;
    if (local < 2u * LANES && quad < WIDTH / 4u) {
      var total = vec4f(0);
      for (var g = 0u; g < GROUPS; g++) { total += shares[g * LANES * 2u + local]; }
      out[placeOfRow(task, task.firstRow + r) * (WIDTH / 4u) + quad] = total;
    }
  }
}
