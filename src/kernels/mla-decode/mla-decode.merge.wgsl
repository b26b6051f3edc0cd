// The merge of the splits. Workgroups are (query row, WORKGROUP / LANES vectors of four channels); LANES invocations share the splits of
// a vector. lse is written as bits, since WGSL has no infinity. Constants: LATENT, COUNTED, LANES (a power of two), MERGE_DEPTH.
#include "../common/grid.wgsl"

@group(0) @binding(0) var<storage, read> partials: array<vec4f>;
@group(0) @binding(1) var<storage, read> stats: array<vec2f>;
@group(0) @binding(2) var<storage, read> batchCount: array<i32>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> lse: array<u32>;

const WORKGROUP = 128u;
const MERGED_ROWS = 1u;
const INFINITY_BITS = 0x7f800000u;
const QUADS = LATENT / 4u;
const QUADS_EACH = WORKGROUP / LANES;
const BLOCKS = QUADS / QUADS_EACH;

var<workgroup> sums: array<vec4f, WORKGROUP>;

#include "../common/weigh-splits.wgsl"

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let item = gridIndex(group);
  if (item >= scalars.grid) { return; }
  let row = item / BLOCKS;
  let rows = u32(scalars.rows);
  let splits = u32(scalars.splits);
#if COUNTED
  if (i32(row / rows) >= batchCount[0]) { return; }
#endif
  let first = row / rows * splits * rows + row % rows;
  for (var s = local; s < splits; s += WORKGROUP) { splitStats[s] = stats[first + s * rows]; }
  workgroupBarrier();
  weighSplits(local, 1u, splits);
  let quad = item % BLOCKS * QUADS_EACH + local % QUADS_EACH;
  let merged = mergedStats(0u);
  var value = mergeSplits(0u, first, rows, splits, local / QUADS_EACH, LANES, QUADS, quad);
  sums[local] = value;
  workgroupBarrier();
  if (local < QUADS_EACH) {
    for (var lane = 1u; lane < LANES; lane++) { value += sums[local + lane * QUADS_EACH]; }
    out[row * QUADS + quad] = select(value / merged.sum, vec4f(0), merged.sum == 0.0);
  }
  if (local == 0u && item % BLOCKS == 0u) {
    let value = (merged.highest + log2(max(merged.sum, 1e-30))) * 0.6931471805599453;
    lse[row] = select(bitcast<u32>(value), INFINITY_BITS, merged.sum == 0.0);
  }
}
