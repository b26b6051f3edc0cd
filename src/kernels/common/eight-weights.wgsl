// Eight neighbouring weights as float32, read from words of 16 bytes. FIRST_DTYPE and SECOND_DTYPE are numbers of `weight.ts`: 0 bf16,
// 1 f16, 2 f32.

struct Eight { low: vec4f, high: vec4f }

fn widenBf16(words: vec4u) -> Eight {
  return Eight(
    bitcast<vec4f>(vec4u(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u)),
    bitcast<vec4f>(vec4u(words.z << 16u, words.z & 0xffff0000u, words.w << 16u, words.w & 0xffff0000u)),
  );
}

fn widenF16(words: vec4u) -> Eight {
  return Eight(
    vec4f(unpack2x16float(words.x), unpack2x16float(words.y)),
    vec4f(unpack2x16float(words.z), unpack2x16float(words.w)),
  );
}

/// Weights 8 · index … of the first matrix.
fn firstEight(index: u32) -> Eight {
#if FIRST_DTYPE == 0
  return widenBf16(first[index]);
#endif
#if FIRST_DTYPE == 1
  return widenF16(first[index]);
#endif
#if FIRST_DTYPE == 2
  return Eight(bitcast<vec4f>(first[index * 2u]), bitcast<vec4f>(first[index * 2u + 1u]));
#endif
}

#if GATED
/// Weights 8 · index … of the second matrix.
fn secondEight(index: u32) -> Eight {
#if SECOND_DTYPE == 0
  return widenBf16(second[index]);
#endif
#if SECOND_DTYPE == 1
  return widenF16(second[index]);
#endif
#if SECOND_DTYPE == 2
  return Eight(bitcast<vec4f>(second[index * 2u]), bitcast<vec4f>(second[index * 2u + 1u]));
#endif
}
#endif
