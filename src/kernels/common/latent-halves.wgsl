// Entries of a latent cache as f16, four values at a time, within f16's range: what latent-octs.wgsl fetches, clamped.
#include "latent-octs.wgsl"

/// Two float32 as f16, in one word: NVIDIA's compiler stores neighbouring values of words together, converted ones one by one.
fn packF16(value: vec2f) -> vec2h {
  return clamp(bitcast<vec2h>(pack2x16float(value)), vec2h(-65504.0), vec2h(65504.0));
}

fn toF16(value: vec4f) -> vec4h {
  return vec4h(packF16(value.xy), packF16(value.zw));
}

fn bf16ToF16(words: vec2u) -> vec4h {
  return toF16(bitcast<vec4f>(vec4u(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u)));
}

/// Four e4m3 values times their scale: as f16 they have the same fraction and an exponent that is 8 too small.
fn e4m3ToF16(word: u32, scale: f32) -> vec4h {
  let low = ((word & 0x7fu) << 7u) | ((word & 0x80u) << 8u) | ((word & 0x7f00u) << 15u) | ((word & 0x8000u) << 16u);
  let upper = word >> 16u;
  let high = ((upper & 0x7fu) << 7u) | ((upper & 0x80u) << 8u) | ((upper & 0x7f00u) << 15u) | ((upper & 0x8000u) << 16u);
  return toF16(vec4f(unpack2x16float(low), unpack2x16float(high)) * 256.0 * scale);
}

/// The first four of the eight values.
fn lowOct(words: vec4u, oct: u32) -> vec4h {
#if LATENT_DTYPE == 1
  return vec4h(bitcast<vec2h>(words.x), bitcast<vec2h>(words.y));
#endif
#if LATENT_DTYPE == 2
  return bf16ToF16(words.xy);
#endif
#if LATENT_DTYPE == 3
  if (oct < LATENT / 8u) { return e4m3ToF16(words.x, bitcast<f32>(words.z)); }
  return bf16ToF16(words.xy);
#endif
}

/// The last four of the eight values.
fn highOct(words: vec4u, oct: u32) -> vec4h {
#if LATENT_DTYPE == 1
  return vec4h(bitcast<vec2h>(words.z), bitcast<vec2h>(words.w));
#endif
#if LATENT_DTYPE == 2
  return bf16ToF16(words.zw);
#endif
#if LATENT_DTYPE == 3
  if (oct < LATENT / 8u) { return e4m3ToF16(words.y, bitcast<f32>(words.z)); }
  return bf16ToF16(words.zw);
#endif
}
