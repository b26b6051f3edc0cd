// Weights as float32 lanes. A type parameter names the stored dtype: u16 is bf16, i16 is f16, f32 is f32.
import { bf16High, bf16Low } from "./simd.as";

/** Numbers of the dtypes in scalars; `weight.ts` holds the same. */
export const BF16: i32 = 0;
export const F16: i32 = 1;
export const F32: i32 = 2;

/** Four f16 values, sign-extended to 32 bits, as f32: exponent and fraction move into place, 2^112 mends the bias. */
// @ts-ignore: decorator
@inline
function f16Extended(bits: v128): v128 {
  const moved = v128.and(i32x4.shl(bits, 13), i32x4.splat(<i32>0x8fffe000));
  return f32x4.mul(moved, f32x4.splat(5.192296858534828e33));
}

/** The low four f16 values of `v` as f32, in order; finite values and subnormals, not infinities. */
// @ts-ignore: decorator
@inline
export function f16Low(v: v128): v128 {
  return f16Extended(i32x4.extend_low_i16x8_s(v));
}

/** The high four f16 values of `v` as f32, in order. */
// @ts-ignore: decorator
@inline
export function f16High(v: v128): v128 {
  return f16Extended(i32x4.extend_high_i16x8_s(v));
}

/** Weights 0–3 of the eight at `address`, whose first 16 bytes are `raw`. */
// @ts-ignore: decorator
@inline
export function weightsLow<T>(raw: v128): v128 {
  if (isFloat<T>()) return raw;
  return isSigned<T>() ? f16Low(raw) : bf16Low(raw);
}

/** Weights 4–7 of the eight at `address`, whose first 16 bytes are `raw`. */
// @ts-ignore: decorator
@inline
export function weightsHigh<T>(raw: v128, address: usize): v128 {
  if (isFloat<T>()) return v128.load(address, 16);
  return isSigned<T>() ? f16High(raw) : bf16High(raw);
}

/** Four weights at `address`. */
// @ts-ignore: decorator
@inline
export function loadWeights<T>(address: usize): v128 {
  if (isFloat<T>()) return v128.load(address);
  if (isSigned<T>()) return f16Extended(v128.load_ext<i16>(address));
  return i32x4.shl(v128.load_ext<u16>(address), 16);
}

/** Bytes of one weight of a dtype number. */
// @ts-ignore: decorator
@inline
export function weightSize(dtype: i32): usize {
  return dtype == F32 ? 4 : 2;
}

function convertAs<T>(source: usize, count: i32, target: usize): void {
  const end = target + (<usize>count << 2);
  while (target < end) {
    const raw = v128.load(source);
    v128.store(target, weightsLow<T>(raw));
    v128.store(target, weightsHigh<T>(raw, source), 16);
    source += 8 * sizeof<T>();
    target += 32;
  }
}

/** Converts `count` weights (a multiple of 8) at `source` to f32 at `target`. */
export function convertWeights(dtype: i32, source: usize, count: i32, target: usize): void {
  if (dtype == BF16) convertAs<u16>(source, count, target);
  else if (dtype == F16) convertAs<i16>(source, count, target);
  else convertAs<f32>(source, count, target);
}
