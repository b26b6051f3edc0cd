// Multiply-adds in float32: 64 a step and invocation, 16 of them independent. Buffers: sums; scalars: steps.
#include "../kernels/common/grid.wgsl"

@group(0) @binding(0) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  var a = vec4f(f32(local));
  var b = a + 1.0;
  var c = a + 2.0;
  var d = a + 3.0;
  let factor = vec4f(0.999 + f32(gridIndex(group)) * 1e-9);
  for (var step = 0; step < scalars.steps; step++) {
    for (var i = 0; i < 4; i++) {
      a = fma(a, factor, vec4f(0.5));
      b = fma(b, factor, vec4f(0.5));
      c = fma(c, factor, vec4f(0.5));
      d = fma(d, factor, vec4f(0.5));
    }
  }
  let sum = a + b + c + d;
  if (sum.x + sum.y + sum.z + sum.w == 12345.678) { sums[0] = sum.x; }
}
