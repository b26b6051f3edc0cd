// Workgroups are rows. Buffers: x, weight, out, rowCount; scalars: width (a multiple of 4), epsilon. SUBGROUPS: subgroups of SUBGROUP add up
// the squares. HALF: out is f16, as far as its range goes.
#include "../common/grid.wgsl"
#include "../common/workgroup-sum.wgsl"
#include "../common/workgroup-sum.subgroups.wgsl"

#if !IN_PLACE
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
#endif
@group(0) @binding(1) var<storage, read> weight: array<vec4f>;
#if HALF
@group(0) @binding(2) var<storage, read_write> out: array<vec2u>;
#else
@group(0) @binding(2) var<storage, read_write> out: array<vec4f>;
#endif
@group(0) @binding(3) var<storage, read> rowCount: array<i32>;

fn input(index: u32) -> vec4f {
#if IN_PLACE
  return out[index];
#else
  return x[index];
#endif
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = gridIndex(group);
  if (row >= scalars.grid || i32(row) >= rowCount[0]) { return; }
  let vectors = u32(scalars.width) / 4u;
  let base = row * vectors;
  var squares = 0.0;
  for (var i = local; i < vectors; i += WORKGROUP) {
    let v = input(base + i);
    squares += dot(v, v);
  }
#if SUBGROUPS
  let mean = subgroupsSum(squares, local) / f32(scalars.width);
#else
  let mean = workgroupSum(squares, local) / f32(scalars.width);
#endif
  let scale = 1.0 / sqrt(mean + scalars.epsilon);
  for (var i = local; i < vectors; i += WORKGROUP) {
    let value = input(base + i) * scale * weight[i];
#if HALF
    let bounded = clamp(value, vec4f(-65504.0), vec4f(65504.0));
    out[base + i] = vec2u(pack2x16float(bounded.xy), pack2x16float(bounded.zw));
#else
    out[base + i] = value;
#endif
  }
}
