// SiLU of four lanes, with an exponential good to 2 units in the last place.
import { multiplyAdd } from "./simd.as";

/**
 * e^x per lane: 2^n · e^r with r in ±ln 2 / 2, e^r by its series to degree 6. Saturates at ±87. Adding 1.5·2^23 leaves the
 * nearest integer in the low bits; with `pmin` and `pmax` that is a third of the instructions of `nearest`, `min` and `max`.
 */
// @ts-ignore: decorator
@inline
export function expLanes(x: v128): v128 {
  const bounded = f32x4.pmax(f32x4.pmin(x, f32x4.splat(87)), f32x4.splat(-87));
  const shifted = f32x4.add(f32x4.mul(bounded, f32x4.splat(1.4426950408889634)), f32x4.splat(12582912));
  const n = f32x4.sub(shifted, f32x4.splat(12582912));
  const high = multiplyAdd(n, f32x4.splat(-0.693359375), bounded);
  const r = multiplyAdd(n, f32x4.splat(2.12194440e-4), high);
  let sum = multiplyAdd(r, f32x4.splat(1.0 / 720.0), f32x4.splat(1.0 / 120.0));
  sum = multiplyAdd(sum, r, f32x4.splat(1.0 / 24.0));
  sum = multiplyAdd(sum, r, f32x4.splat(1.0 / 6.0));
  sum = multiplyAdd(sum, r, f32x4.splat(0.5));
  sum = multiplyAdd(sum, r, f32x4.splat(1));
  sum = multiplyAdd(sum, r, f32x4.splat(1));
  return f32x4.mul(sum, i32x4.shl(i32x4.add(shifted, i32x4.splat(127)), 23));
}

/** x / (1 + e^−x) per lane. */
// @ts-ignore: decorator
@inline
export function siluLanes(x: v128): v128 {
  return f32x4.div(x, f32x4.add(f32x4.splat(1), expLanes(f32x4.neg(x))));
}
