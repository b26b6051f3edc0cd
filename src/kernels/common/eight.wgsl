// Eight neighbouring values as float32.

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
