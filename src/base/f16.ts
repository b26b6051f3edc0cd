import { bitsToF32, f32BitsOf, f32ToBits, shiftRightToNearestEven } from "./f32-bits.ts";

/** From the bits of a float32 to the bits of the nearest IEEE 754 binary16, ties to even. */
function narrowBits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >>> 13) & 0x3ff);
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // from 65520 on: infinity
  const exponent = magnitude >>> 23;
  if (exponent > 112) return sign | shiftRightToNearestEven(magnitude - (112 << 23), 13);
  if (exponent < 102) return sign; // under 2^-25, half the smallest subnormal
  const significand = (magnitude & 0x7fffff) | 0x800000;
  return sign | shiftRightToNearestEven(significand, 126 - exponent);
}

/** From the bits of a binary16 to the bits of the float32 of the same value; exact. */
function widenBits(bits: number): number {
  const sign = (bits & 0x8000) << 16;
  const exponent = (bits >>> 10) & 31;
  const mantissa = bits & 0x3ff;
  if (exponent === 31) return sign | 0x7f800000 | (mantissa << 13);
  if (exponent > 0) return sign | ((exponent + 112) << 23) | (mantissa << 13);
  if (mantissa === 0) return sign;
  const leading = 31 - Math.clz32(mantissa);
  return sign | ((leading + 103) << 23) | ((mantissa << (23 - leading)) & 0x7fffff);
}

/**
 * The 16 bits of `value` (rounded to float32 first) as IEEE 754 binary16, to nearest, ties to even. Values of
 * 65520 and over become infinity; a NaN stays a NaN of the same sign, made quiet.
 */
export function f32ToF16(value: number): number {
  return narrowBits(f32ToBits(value));
}

/** The value of the 16 bits of an IEEE 754 binary16; exact. */
export function f16ToF32(bits: number): number {
  return bitsToF32(widenBits(bits));
}

/** {@link f32ToF16} of every element of `values` [n], into `target` [n] (made when not given). */
export function toF16(values: Float32Array, target = new Uint16Array(values.length)): Uint16Array {
  const bits = f32BitsOf(values);
  for (let i = 0; i < bits.length; i++) target[i] = narrowBits(bits[i]!);
  return target;
}

/** {@link f16ToF32} of every element of `bits` [n], into `target` [n] (made when not given). */
export function fromF16(bits: Uint16Array, target = new Float32Array(bits.length)): Float32Array {
  const out = f32BitsOf(target);
  for (let i = 0; i < bits.length; i++) out[i] = widenBits(bits[i]!);
  return target;
}
