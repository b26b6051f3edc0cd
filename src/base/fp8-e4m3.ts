import { f32BitsOf, f32ToBits, shiftRightToNearestEven } from "./f32-bits.ts";

/** The largest finite value of e4m3. */
export const e4m3Max = 448;

/** From the bits of a float32 to the bits of the nearest e4m3, ties to even, saturating. */
function narrowBits(bits: number): number {
  const sign = (bits >>> 24) & 0x80;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7f;
  if (magnitude >= 0x43e00000) return sign | 0x7e; // from 448 on, infinity included
  const exponent = magnitude >>> 23;
  if (exponent > 120) return sign | shiftRightToNearestEven(magnitude - (120 << 23), 20);
  if (exponent < 117) return sign; // under 2^-10, half the smallest subnormal
  const significand = (magnitude & 0x7fffff) | 0x800000;
  return sign | shiftRightToNearestEven(significand, 141 - exponent);
}

function widen(bits: number): number {
  const sign = bits & 0x80 ? -1 : 1;
  const exponent = (bits >>> 3) & 15;
  const mantissa = bits & 7;
  if (exponent === 15 && mantissa === 7) return Number.NaN;
  if (exponent === 0) return sign * mantissa * 2 ** -9;
  return sign * (8 + mantissa) * 2 ** (exponent - 10);
}

const values = Float32Array.from({ length: 256 }, (_, bits) => widen(bits));

/**
 * The 8 bits of `value` (rounded to float32 first) as fp8 e4m3fn of the OCP 8-bit floating point specification:
 * 4 exponent bits, bias 7, no infinity, NaN only at 0x7f and 0xff. To nearest, ties to even. Saturating, as CUDA's
 * `__NV_SATFINITE`: every magnitude over 448, infinity too, becomes 448; a NaN stays a NaN of the same sign.
 */
export function f32ToE4m3(value: number): number {
  return narrowBits(f32ToBits(value));
}

/** The value of the 8 bits of an e4m3fn; exact. */
export function e4m3ToF32(bits: number): number {
  return values[bits & 0xff]!;
}

/** {@link f32ToE4m3} of every element of `input` [n], into `target` [n] (made when not given). */
export function toE4m3(input: Float32Array, target = new Uint8Array(input.length)): Uint8Array {
  const bits = f32BitsOf(input);
  for (let i = 0; i < bits.length; i++) target[i] = narrowBits(bits[i]!);
  return target;
}

/** {@link e4m3ToF32} of every element of `bits` [n], into `target` [n] (made when not given). */
export function fromE4m3(bits: Uint8Array, target = new Float32Array(bits.length)): Float32Array {
  for (let i = 0; i < bits.length; i++) target[i] = values[bits[i]!]!;
  return target;
}
