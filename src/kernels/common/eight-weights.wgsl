// Eight neighbouring weights: as stored, which is what is asked for ahead, and as float32. FIRST_DTYPE and SECOND_DTYPE are numbers of
// `weight.ts`: 0 bf16, 1 f16, 2 f32. SECOND: there is a second matrix.
#include "eight.wgsl"

/// Eight float32 as stored.
struct TwoWords { low: vec4u, high: vec4u }

#if FIRST_DTYPE == 2
alias FirstWords = TwoWords;
#else
alias FirstWords = vec4u;
#endif

/// Weights 8 · index … of the first matrix.
fn fetchFirst(index: u32) -> FirstWords {
#if FIRST_DTYPE == 2
  return TwoWords(first[index * 2u], first[index * 2u + 1u]);
#else
  return first[index];
#endif
}

fn widenFirst(words: FirstWords) -> Eight {
#if FIRST_DTYPE == 0
  return widenBf16(words);
#endif
#if FIRST_DTYPE == 1
  return widenF16(words);
#endif
#if FIRST_DTYPE == 2
  return Eight(bitcast<vec4f>(words.low), bitcast<vec4f>(words.high));
#endif
}

#if SECOND
#if SECOND_DTYPE == 2
alias SecondWords = TwoWords;
#else
alias SecondWords = vec4u;
#endif

/// Weights 8 · index … of the second matrix.
fn fetchSecond(index: u32) -> SecondWords {
#if SECOND_DTYPE == 2
  return TwoWords(second[index * 2u], second[index * 2u + 1u]);
#else
  return second[index];
#endif
}

fn widenSecond(words: SecondWords) -> Eight {
#if SECOND_DTYPE == 0
  return widenBf16(words);
#endif
#if SECOND_DTYPE == 1
  return widenF16(words);
#endif
#if SECOND_DTYPE == 2
  return Eight(bitcast<vec4f>(words.low), bitcast<vec4f>(words.high));
#endif
}
#endif
