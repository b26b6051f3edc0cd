// Random weights, activations and cache entries: the fills of random-fill.as.ts. A workgroup fills a chunk of chunkBytes bytes. Buffers: target;
// scalars: chunkBytes, vectors, form (0 f32, 1 bf16, 2 e4m3 bytes without a NaN), seed, limit.
#include "../../kernels/common/grid.wgsl"

@group(0) @binding(0) var<storage, read_write> filled: array<vec4u>;

fn hash(index: u32) -> u32 {
  var x = index * 0x9e3779b1u;
  x ^= x >> 15u;
  x *= 0x85ebca77u;
  return x ^ (x >> 13u);
}

fn uniformBits(index: u32) -> u32 {
  return bitcast<u32>(f32(bitcast<i32>(hash(index))) * (scalars.limit * 4.656612873077393e-10));
}

fn word(index: u32, k: u32) -> u32 {
  switch (scalars.form) {
    case 0: { return uniformBits(index + k); }
    // bf16 by truncation.
    case 1: { return (uniformBits(index + 2u * k) >> 16u) | (uniformBits(index + 2u * k + 1u) & 0xffff0000u); }
    // Magnitudes under 1, so that a scale of 1 keeps scores small.
    default: { return hash(index + k) & 0xb7b7b7b7u; }
  }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let item = gridIndex(group);
  let chunk = u32(scalars.chunkBytes) / 16u;
  for (var i = item * chunk + local; i < min((item + 1u) * chunk, u32(scalars.vectors)); i += 256u) {
    let index = 8u * i + u32(scalars.seed);
    filled[i] = vec4u(word(index, 0u), word(index, 1u), word(index, 2u), word(index, 3u));
  }
}
