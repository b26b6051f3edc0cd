// out = or += scale · Σ weight · value over a row's choices, in their order. Workgroups are rows. Buffers: values [rows · perToken, width],
// expertIds, expertWeights, out, rowCount; scalars: width, perToken, experts, mode (1 accumulates), scale.
#include "../common/grid.wgsl"

@group(0) @binding(0) var<storage, read> values: array<vec4f>;
@group(0) @binding(1) var<storage, read> expertIds: array<u32>;
@group(0) @binding(2) var<storage, read> expertWeights: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(4) var<storage, read> rowCount: array<i32>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = gridIndex(group);
  if (row >= scalars.grid || i32(row) >= rowCount[0]) { return; }
  let vectors = u32(scalars.width) / 4u;
  let perToken = u32(scalars.perToken);
  for (var at = local; at < vectors; at += 128u) {
    var sum = vec4f(0);
    for (var i = row * perToken; i < (row + 1u) * perToken; i++) {
      if (expertIds[i] < u32(scalars.experts)) { sum += expertWeights[i] * values[i * vectors + at]; }
    }
    sum *= scalars.scale;
    if (scalars.mode == 1) { sum += out[row * vectors + at]; }
    out[row * vectors + at] = sum;
  }
}
