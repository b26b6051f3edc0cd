const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** The 32 bits of `value` rounded to float32, as an unsigned integer. */
export function f32ToBits(value: number): number {
  float[0] = value;
  return bits[0]!;
}

/** The float32 whose 32 bits are `pattern`. */
export function bitsToF32(pattern: number): number {
  bits[0] = pattern;
  return float[0]!;
}

/** The same memory as `values`, read as the bits of each float32. */
export function f32BitsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

/**
 * Shifts the unsigned integer `value` right by `shift` (1 to 31) bits, rounding to nearest, ties to even.
 * `value + 2^(shift-1)` must fit 32 bits unsigned.
 */
export function shiftRightToNearestEven(value: number, shift: number): number {
  const odd = (value >>> shift) & 1;
  return (value + (1 << (shift - 1)) - 1 + odd) >>> shift;
}
