// Entries of a latent cache as float32. The kernel declares `cache` as array<LatentWords>; LATENT, ROPE are d_c and d_r,
// LATENT_DTYPE the code of latent-cache.ts: 0 f32, 1 f16, 2 bf16, 3 fp8.

/// Vectors of four values of an entry.
const ENTRY_QUADS = (LATENT + ROPE) / 4u;

#if LATENT_DTYPE == 0
alias LatentWords = vec4f;
#endif
#if LATENT_DTYPE == 1
alias LatentWords = vec2u;
#endif
#if LATENT_DTYPE == 2
alias LatentWords = vec2u;
#endif
#if LATENT_DTYPE == 3
alias LatentWords = u32;
const ENTRY_WORDS = LATENT / 4u + LATENT / 128u + ROPE / 2u;
#endif

fn widenBf16(words: vec2u) -> vec4f {
  return bitcast<vec4f>(vec4u(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u));
}

fn widenF16(words: vec2u) -> vec4f {
  return vec4f(unpack2x16float(words.x), unpack2x16float(words.y));
}

/// Four e4m3 values: as f16 they have the same fraction and an exponent that is 8 too small.
fn widenE4m3(word: u32) -> vec4f {
  let low = ((word & 0x7fu) << 7u) | ((word & 0x80u) << 8u) | ((word & 0x7f00u) << 15u) | ((word & 0x8000u) << 16u);
  let upper = word >> 16u;
  let high = ((upper & 0x7fu) << 7u) | ((upper & 0x80u) << 8u) | ((upper & 0x7f00u) << 15u) | ((upper & 0x8000u) << 16u);
  return vec4f(unpack2x16float(low), unpack2x16float(high)) * 256.0;
}

// Four values as stored, to be on their way before they are needed.
#if LATENT_DTYPE == 0
alias StoredFour = vec4f;
#else
alias StoredFour = vec2u;
#endif

/// Values 4·quad … 4·quad + 3 of the entry at `slot` as stored (of fp8, a word and the scale): latent ones, then rotary ones.
fn fetchFour(slot: u32, quad: u32) -> StoredFour {
#if LATENT_DTYPE == 3
  let entry = slot * ENTRY_WORDS;
  if (quad < LATENT / 4u) { return vec2u(cache[entry + quad], cache[entry + LATENT / 4u + quad / 32u]); }
  let rope = entry + LATENT / 4u + LATENT / 128u + (quad - LATENT / 4u) * 2u;
  return vec2u(cache[rope], cache[rope + 1u]);
#else
  return cache[slot * ENTRY_QUADS + quad];
#endif
}

/// What `fetchFour` found, as float32.
fn widenFour(stored: StoredFour, quad: u32) -> vec4f {
#if LATENT_DTYPE == 0
  return stored;
#endif
#if LATENT_DTYPE == 1
  return widenF16(stored);
#endif
#if LATENT_DTYPE == 2
  return widenBf16(stored);
#endif
#if LATENT_DTYPE == 3
  if (quad < LATENT / 4u) { return widenE4m3(stored.x) * bitcast<f32>(stored.y); }
  return widenBf16(stored);
#endif
}

fn latentFour(slot: u32, quad: u32) -> vec4f { return widenFour(fetchFour(slot, quad), quad); }
