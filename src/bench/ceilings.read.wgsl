// Reads all of `source`, a vector an invocation and turn, eight of them under way. Buffers: source, sums; scalars: vectors.
#include "../kernels/common/grid.wgsl"

@group(0) @binding(0) var<storage, read> source: array<vec4u>;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let vectors = u32(scalars.vectors);
  let stride = scalars.grid * 256u;
  var sum = vec4u(0u);
  for (var at = gridIndex(group) * 256u + local; at < vectors; at += 8u * stride) {
    var found: array<vec4u, 8>;
    for (var i = 0u; i < 8u; i++) { found[i] = source[min(at + i * stride, vectors - 1u)]; }
    for (var i = 0u; i < 8u; i++) { sum ^= found[i]; }
  }
  // Never so, which nobody can see: the reading has to be done.
  if (all(sum == vec4u(0x9e3779b1u, 1u, 2u, 3u))) { sums[0] = local; }
}
