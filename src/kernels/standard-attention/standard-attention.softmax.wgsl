// Scores to probabilities, in place; workgroups are rows of [batch, sQ · heads]. Tokens that a row does not see get 0. lse is written as
// bits, since WGSL has no infinity. Buffers: lengths, batchCount, scores, lse; scalars: tableWidth, sQ, heads, kvHeads, causal, window, stride.
// WORKGROUP: 256.
#include "../common/key-value.wgsl"
#include "../common/workgroup-sum.wgsl"

@group(0) @binding(0) var<storage, read> lengths: array<i32>;
@group(0) @binding(1) var<storage, read> batchCount: array<i32>;
@group(0) @binding(2) var<storage, read_write> scores: array<f32>;
@group(0) @binding(3) var<storage, read_write> lse: array<u32>;

var<workgroup> tops: array<f32, WORKGROUP>;

fn workgroupMax(value: f32, local: u32) -> f32 {
  tops[local] = value;
  for (var span = WORKGROUP / 2u; span > 0u; span /= 2u) {
    workgroupBarrier();
    if (local < span) { tops[local] = max(tops[local], tops[local + span]); }
  }
  workgroupBarrier();
  return tops[0];
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let item = gridIndex(group);
  let rows = u32(scalars.sQ * scalars.heads);
  let length = lengthOf(item / rows, item < scalars.grid, local);
  if (length < 0) { return; }
  let visible = visibleTo(length, item % rows / u32(scalars.heads));
  let base = item * u32(scalars.stride);
  var own = -1e30;
  for (var t = visible.x + local; t < visible.y; t += WORKGROUP) { own = max(own, scores[base + t]); }
  let top = workgroupMax(own, local);
  var sum = 0.0;
  for (var t = visible.x + local; t < visible.y; t += WORKGROUP) { sum += exp2(scores[base + t] - top); }
  let total = workgroupSum(sum, local);
  let inverse = select(0.0, 1.0 / max(total, 1e-30), total > 0.0);
  for (var t = local; t < u32(length); t += WORKGROUP) {
    if (t >= visible.x && t < visible.y) {
      scores[base + t] = exp2(scores[base + t] - top) * inverse;
    } else {
      scores[base + t] = 0.0;
    }
  }
  if (local == 0u) {
    let value = (top + log2(max(total, 1e-30))) * 0.6931471805599453;
    lse[item] = select(bitcast<u32>(value), 0x7f800000u, total == 0.0);
  }
}
