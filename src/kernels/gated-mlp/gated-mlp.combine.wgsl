// gate = silu(gate) · up, in f16 with float32 between. Buffers: gate, up, rowCount; scalars: eighths of a row.
#include "../common/grid.wgsl"

@group(0) @binding(0) var<storage, read_write> gate: array<vec4u>;
@group(0) @binding(1) var<storage, read> up: array<vec4u>;
@group(0) @binding(2) var<storage, read> rowCount: array<i32>;

fn combine(gateWord: u32, upWord: u32) -> u32 {
  let g = unpack2x16float(gateWord);
  let value = g / (1.0 + exp(-clamp(g, vec2f(-80.0), vec2f(80.0)))) * unpack2x16float(upWord);
  return pack2x16float(clamp(value, vec2f(-65504.0), vec2f(65504.0)));
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = gridIndex(group);
  if (row >= scalars.grid || i32(row) >= rowCount[0]) { return; }
  let eighths = u32(scalars.eighths);
  for (var i = row * eighths + local; i < (row + 1u) * eighths; i += 256u) {
    let g = gate[i];
    let u = up[i];
    gate[i] = vec4u(combine(g.x, u.x), combine(g.y, u.y), combine(g.z, u.z), combine(g.w, u.w));
  }
}
