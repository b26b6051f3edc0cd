// Entries of a latent cache in 16 or 8 bits as f16, eight values at a time: exact but for those below f16's normal range, which lose
// bits; past its range (65,504) they are no numbers any more. Instead of latent.wgsl; LATENT_DTYPE: 1 f16, 2 bf16, 3 fp8.

/// Groups of eight values of an entry.
const ENTRY_OCTS = (LATENT + ROPE) / 8u;

#if LATENT_DTYPE == 3
alias LatentWords = u32;
const ENTRY_WORDS = LATENT / 4u + LATENT / 128u + ROPE / 2u;
#else
alias LatentWords = vec4u;
#endif

/// Eight values as stored: four words; of fp8, two words and the scale.
fn fetchOct(slot: u32, oct: u32) -> vec4u {
#if LATENT_DTYPE == 3
  let entry = slot * ENTRY_WORDS;
  if (oct < LATENT / 8u) {
    return vec4u(cache[entry + oct * 2u], cache[entry + oct * 2u + 1u], cache[entry + LATENT / 4u + oct / 16u], 0u);
  }
  let rope = entry + LATENT / 4u + LATENT / 128u + (oct - LATENT / 8u) * 4u;
  return vec4u(cache[rope], cache[rope + 1u], cache[rope + 2u], cache[rope + 3u]);
#else
  return cache[slot * ENTRY_OCTS + oct];
#endif
}

/// Four float32 as f16 in two words.
fn packFour(value: vec4f) -> vec2u { return vec2u(pack2x16float(value.xy), pack2x16float(value.zw)); }

fn packBf16(words: vec2u) -> vec2u {
  return packFour(bitcast<vec4f>(vec4u(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u)));
}

/// Four e4m3 values times their scale: as f16 they have the same fraction and an exponent that is 8 too small.
fn packE4m3(word: u32, scale: f32) -> vec2u {
  let low = ((word & 0x7fu) << 7u) | ((word & 0x80u) << 8u) | ((word & 0x7f00u) << 15u) | ((word & 0x8000u) << 16u);
  let upper = word >> 16u;
  let high = ((upper & 0x7fu) << 7u) | ((upper & 0x80u) << 8u) | ((upper & 0x7f00u) << 15u) | ((upper & 0x8000u) << 16u);
  return packFour(vec4f(unpack2x16float(low), unpack2x16float(high)) * 256.0 * scale);
}

/// What `fetchOct` found, as eight f16 in four words. They are to be masked before they are taken apart into workgroup memory, by a mask
/// that is all ones where they are wanted, pair after pair in the order of their addresses: NVIDIA's compiler then stores several together,
/// which values that it has converted itself, or takes from vectors of four, are not.
fn packOct(words: vec4u, oct: u32) -> vec4u {
#if LATENT_DTYPE == 1
  return words;
#endif
#if LATENT_DTYPE == 2
  return vec4u(packBf16(words.xy), packBf16(words.zw));
#endif
#if LATENT_DTYPE == 3
  if (oct < LATENT / 8u) {
    let scale = bitcast<f32>(words.z);
    return vec4u(packE4m3(words.x, scale), packE4m3(words.y, scale));
  }
  return vec4u(packBf16(words.xy), packBf16(words.zw));
#endif
}
