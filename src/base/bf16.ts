import { bitsToF32, f32BitsOf, f32ToBits } from "./f32-bits.ts";

/** bf16 is the upper half of a float32: round the lower half away, to nearest, ties to even. */
function roundBits(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/**
 * The 16 bits of `value` (rounded to float32 first) as bf16, to nearest, ties to even. Finite values past the
 * largest bf16 become infinity; a NaN stays a NaN of the same sign, made quiet.
 */
export function f32ToBf16(value: number): number {
  return roundBits(f32ToBits(value));
}

/** The value of the 16 bits of a bf16; exact. */
export function bf16ToF32(bits: number): number {
  return bitsToF32(bits << 16);
}

/** {@link f32ToBf16} of every element of `values` [n], into `target` [n] (made when not given). */
export function toBf16(values: Float32Array, target = new Uint16Array(values.length)): Uint16Array {
  const bits = f32BitsOf(values);
  for (let i = 0; i < bits.length; i++) target[i] = roundBits(bits[i]!);
  return target;
}

/** {@link bf16ToF32} of every element of `bits` [n], into `target` [n] (made when not given). */
export function fromBf16(bits: Uint16Array, target = new Float32Array(bits.length)): Float32Array {
  const out = f32BitsOf(target);
  for (let i = 0; i < bits.length; i++) out[i] = bits[i]! << 16;
  return target;
}
