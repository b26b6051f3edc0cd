// Scores in base 2: a workgroup takes 128 tokens of one sequence's key head for ROWS query rows. Buffers: q, keys, table, lengths,
// batchCount, scores [batch, sQ · heads, stride]. Scalars: tableWidth, sQ, heads, kvHeads, causal, window, chunks, stride, softmaxScale.
#include "../common/key-value.wgsl"

@group(0) @binding(0) var<storage, read> q: array<vec4f>;
@group(0) @binding(1) var<storage, read> keys: array<vec4u>;
@group(0) @binding(2) var<storage, read> table: array<i32>;
@group(0) @binding(3) var<storage, read> lengths: array<i32>;
@group(0) @binding(4) var<storage, read> batchCount: array<i32>;
@group(0) @binding(5) var<storage, read_write> scores: array<f32>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let item = gridIndex(group);
  let task = taskOf(item, u32(scalars.chunks));
  let length = lengthOf(task.sequence, item < scalars.grid, local);
  if (i32(task.part * 128u) >= length) { return; }
  fetchQueries(task, local, 128u);
  let token = task.part * 128u + local;
  if (i32(token) >= length) { return; }
  let found = scoresOf(poolRow(task, table[tableAt(task, token)], token));
  for (var r = 0u; r < ROWS; r++) {
    if (task.firstRow + r < spanRows()) {
      scores[placeOfRow(task, task.firstRow + r) * u32(scalars.stride) + token] = found[r];
    }
  }
}
