// Workgroups are rows. Buffers: ids, table, out, rowCount; scalars: vocab, hidden (a multiple of 8), first, count, scale. The
// table's rows first … first + count are bound: a row of another id is left to another launch. An id outside the whole table gives
// a row of zeros, by the launch that has the first part.
#include "../common/grid.wgsl"
#include "../common/weights.wgsl"

@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read> table: array<WeightWords>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(3) var<storage, read> rowCount: array<i32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = gridIndex(group);
  if (row >= scalars.grid || i32(row) >= rowCount[0]) { return; }
  let id = ids[row];
  let vectors = u32(scalars.hidden) / 4u;
  let isInside = id < u32(scalars.vocab);
  let bound = id - u32(scalars.first);
  if ((isInside && bound >= u32(scalars.count)) || (!isInside && scalars.first != 0)) { return; }
  for (var i = local; i < vectors; i += 64u) {
    var value = vec4f(0);
    if (isInside) { value = widenWeights(table[bound * vectors + i]) * scalars.scale; }
    out[row * vectors + i] = value;
  }
}
