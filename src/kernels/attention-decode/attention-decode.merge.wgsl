// The merge of the splits. Workgroups are query rows; lse is written as bits, since WGSL has no infinity. Buffers: partials, stats,
// batchCount, out, lse; scalars: rows (of a sequence), splits. Constants: WIDTH, COUNTED.
#include "../common/grid.wgsl"
#include "../common/merge-splits.wgsl"

@group(0) @binding(0) var<storage, read> partials: array<vec4f>;
@group(0) @binding(1) var<storage, read> stats: array<vec2f>;
@group(0) @binding(2) var<storage, read> batchCount: array<i32>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> lse: array<u32>;

@compute @workgroup_size(WIDTH / 4u)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = gridIndex(group);
  if (row >= scalars.grid) { return; }
  let rows = u32(scalars.rows);
  let splits = u32(scalars.splits);
#if COUNTED
  if (i32(row / rows) >= batchCount[0]) { return; }
#endif
  let first = row / rows * splits * rows + row % rows;
  let merged = mergeStats(first, rows, splits);
  out[row * (WIDTH / 4u) + local] = mergeFour(merged, first, rows, splits, local, WIDTH / 4u);
  if (local == 0u) {
    let value = (merged.highest + log2(max(merged.sum, 1e-30))) * 0.6931471805599453;
    lse[row] = select(bitcast<u32>(value), 0x7f800000u, merged.sum == 0.0);
  }
}
