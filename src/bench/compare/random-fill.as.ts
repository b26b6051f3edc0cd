import { argFloat, argInt, argPointer } from "../../kernels/common/simd.as";

/** Four hashed 32-bit numbers of the indices in `index`. */
// @ts-ignore: decorator
@inline
function hash(index: v128): v128 {
  let x = i32x4.mul(index, i32x4.splat(<i32>0x9e3779b1));
  x = v128.xor(x, i32x4.shr_u(x, 15));
  x = i32x4.mul(x, i32x4.splat(<i32>0x85ebca77));
  return v128.xor(x, i32x4.shr_u(x, 13));
}

/** Four uniform numbers between ±limit. */
// @ts-ignore: decorator
@inline
function uniform(index: v128, limit: v128): v128 {
  return f32x4.mul(f32x4.convert_i32x4_s(hash(index)), limit);
}

/**
 * Items are chunks. Buffers: target; scalars: chunk bytes (a multiple of 16), 16-byte vectors, form (0 f32, 1 bf16, 2 e4m3 bytes without a
 * NaN), seed, limit. What is left of the last 16 bytes stays as it is.
 */
export function benchRandomFill(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const chunk = <usize>argInt(args, 1), bytes = <usize>argInt(args, 2) << 4, form = argInt(args, 3);
  const limit = f32x4.splat(argFloat(args, 5) * <f32>4.656612873077393e-10); // 2^-31
  const lanes = i32x4(0, 1, 2, 3);
  for (let item = begin; item < end; item++) {
    const start = <usize>item * chunk, stop = min(start + chunk, bytes);
    for (let at = start; at < stop; at += 16) {
      const index = i32x4.add(i32x4.splat(<i32>(at >> 1) + argInt(args, 4)), lanes);
      let value = uniform(index, limit);
      if (form == 1) {
        const more = uniform(i32x4.add(index, i32x4.splat(4)), limit);
        value = i8x16.shuffle(value, more, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31);
      } else if (form == 2) {
        // Magnitudes of at most 0x37: under 1, so that a scale of 1 keeps scores small.
        value = v128.and(hash(index), i32x4.splat(<i32>0xb7b7b7b7));
      }
      v128.store(argPointer(args, 0) + at, value);
    }
  }
}

/**
 * Makes fp8 cache entries of random bytes whole: scales of 1, then rotary values under 1. Items are entries. Buffers: cache;
 * scalars: d_c, d_r.
 */
export function benchFp8Entries(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const latent = <usize>argInt(args, 1), rope = <usize>argInt(args, 2);
  const scales = latent >> 5, size = latent + scales + 2 * rope;
  for (let item = begin; item < end; item++) {
    const entry = argPointer(args, 0) + <usize>item * size + latent;
    for (let i: usize = 0; i < scales; i += 4) store<f32>(entry + i, 1);
    for (let i: usize = 0; i < 2 * rope; i += 2) {
      store<u16>(entry + scales + i, <u16>(0x3e00 | (load<u8>(entry + scales + i) & 0x7f)));
    }
  }
}
