// Rounding of f32 to the cache's narrower types, to nearest even: the same bits as src/base/{bf16,f16,fp8-e4m3}.ts.

/** The 16 bits of `value` as bf16; a NaN stays a quiet NaN. */
export function narrowBf16(value: f32): u16 {
  const bits = reinterpret<u32>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return <u16>((bits >> 16) | 0x40);
  return <u16>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// @ts-ignore: decorator
@inline
function shiftToNearestEven(value: u32, shift: u32): u32 {
  const odd = (value >> shift) & 1;
  return (value + (1 << (shift - 1)) - 1 + odd) >> shift;
}

/** The 16 bits of `value` as IEEE binary16; from 65520 on infinity; a NaN stays a quiet NaN. */
export function narrowF16(value: f32): u16 {
  const bits = reinterpret<u32>(value);
  const sign = (bits >> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return <u16>(sign | 0x7e00 | ((magnitude >> 13) & 0x3ff));
  if (magnitude >= 0x477ff000) return <u16>(sign | 0x7c00);
  const exponent = magnitude >> 23;
  if (exponent > 112) return <u16>(sign | shiftToNearestEven(magnitude - (112 << 23), 13));
  if (exponent < 102) return <u16>sign;
  return <u16>(sign | shiftToNearestEven((magnitude & 0x7fffff) | 0x800000, 126 - exponent));
}

/** The 8 bits of `value` as fp8 e4m3fn, saturating at 448; a NaN stays a NaN. */
export function narrowE4m3(value: f32): u8 {
  const bits = reinterpret<u32>(value);
  const sign = (bits >> 24) & 0x80;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return <u8>(sign | 0x7f);
  if (magnitude >= 0x43e00000) return <u8>(sign | 0x7e);
  const exponent = magnitude >> 23;
  if (exponent > 120) return <u8>(sign | shiftToNearestEven(magnitude - (120 << 23), 20));
  if (exponent < 117) return <u8>sign;
  return <u8>(sign | shiftToNearestEven((magnitude & 0x7fffff) | 0x800000, 141 - exponent));
}
