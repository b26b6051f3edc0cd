// Eight neighbouring weights as float32, read from words of 16 bytes. FIRST_DTYPE and SECOND_DTYPE are numbers of `weight.ts`: 0 bf16,
// 1 f16, 2 f32. SECOND: there is a second matrix.
#include "eight.wgsl"

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

#if SECOND
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
