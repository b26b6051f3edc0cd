// Four neighbouring weights as float32. DTYPE is the number of `weight.ts`: 0 bf16, 1 f16, 2 f32; WeightWords are the words that
// hold four.

#if DTYPE == 2
alias WeightWords = vec4u;
#else
alias WeightWords = vec2u;
#endif

fn widenWeights(words: WeightWords) -> vec4f {
#if DTYPE == 0
  return bitcast<vec4f>(vec4u(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u));
#endif
#if DTYPE == 1
  return vec4f(unpack2x16float(words.x), unpack2x16float(words.y));
#endif
#if DTYPE == 2
  return bitcast<vec4f>(words);
#endif
}
