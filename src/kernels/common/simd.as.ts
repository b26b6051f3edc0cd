// Snippets shared by the WebAssembly kernels: arguments, multiply-add, dtype loads, sums.

/** Argument `index` of a launch as an address: buffers come first, then scalars. */
// @ts-ignore: decorator
@inline
export function argPointer(args: usize, index: i32): usize {
  return load<usize>(args + (<usize>index << 2));
}

/** Argument `index` as an integer. */
// @ts-ignore: decorator
@inline
export function argInt(args: usize, index: i32): i32 {
  return load<i32>(args + (<usize>index << 2));
}

/** Argument `index` as a float. */
// @ts-ignore: decorator
@inline
export function argFloat(args: usize, index: i32): f32 {
  return load<f32>(args + (<usize>index << 2));
}

/** a·b + c per lane: one fused instruction with relaxed SIMD, two roundings without. */
// @ts-ignore: decorator
@inline
export function multiplyAdd(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, c);
  return f32x4.add(f32x4.mul(a, b), c);
}

/** Sum of the four lanes, in a fixed order. */
// @ts-ignore: decorator
@inline
export function sumLanes(v: v128): f32 {
  const pairs = f32x4.add(v, i8x16.shuffle(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  return f32x4.extract_lane(pairs, 0) + f32x4.extract_lane(pairs, 1);
}

/** The low four bf16 values of `v` as f32, in order (one unpack instruction). */
// @ts-ignore: decorator
@inline
export function bf16Low(v: v128): v128 {
  return i8x16.shuffle(i32x4.splat(0), v, 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23);
}

/** The high four bf16 values of `v` as f32, in order. */
// @ts-ignore: decorator
@inline
export function bf16High(v: v128): v128 {
  return i8x16.shuffle(i32x4.splat(0), v, 8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31);
}
