// The rows in use of x as f16, as far as its range goes. Buffers: x, out, rowCount; scalars: width (a multiple of 8), stride (floats from one
// row of x to the next, a multiple of 4), scale.
#include "grid.wgsl"

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> out: array<vec2u>;
@group(0) @binding(2) var<storage, read> rowCount: array<i32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = gridIndex(group);
  if (row >= scalars.grid || i32(row) >= rowCount[0]) { return; }
  let vectors = u32(scalars.width) / 4u;
  let base = row * (u32(scalars.stride) / 4u);
  for (var i = local; i < vectors; i += 256u) {
    let value = clamp(x[base + i] * scalars.scale, vec4f(-65504.0), vec4f(65504.0));
    out[row * vectors + i] = vec2u(pack2x16float(value.xy), pack2x16float(value.zw));
  }
}
