// One entry of the latent cache as float32, from any stored form. Codes: 0 f32, 1 f16, 2 bf16, 3 fp8 (latent-cache.ts).
import { bf16High, bf16Low } from "./simd.as";

/** Bytes of one entry. */
// @ts-ignore: decorator
@inline
export function latentEntrySize(dtype: i32, latentWidth: i32, ropeWidth: i32): usize {
  if (dtype == 3) return <usize>(latentWidth + (latentWidth >> 5) + 2 * ropeWidth);
  return <usize>(latentWidth + ropeWidth) << (dtype == 0 ? 2 : 1);
}

/** Four f16, zero-extended to 32 bits, as f32: exact, subnormals, infinities and NaN included. */
// @ts-ignore: decorator
@inline
export function f16ToF32(bits: v128): v128 {
  const magnitude = v128.and(bits, i32x4.splat(0x7fff));
  const special = v128.and(i32x4.gt_s(magnitude, i32x4.splat(0x7bff)), i32x4.splat(0x7f800000));
  const sign = i32x4.shl(v128.and(bits, i32x4.splat(0x8000)), 16);
  const scaled = f32x4.mul(i32x4.shl(magnitude, 13), f32x4.splat(<f32>5.192296858534828e33)); // 2^112
  return v128.or(v128.or(scaled, special), sign);
}

/** Four e4m3, zero-extended to 32 bits, as f32: exact, NaN included. */
// @ts-ignore: decorator
@inline
export function e4m3ToF32(bits: v128): v128 {
  const magnitude = v128.and(bits, i32x4.splat(0x7f));
  const nan = v128.and(i32x4.eq(magnitude, i32x4.splat(0x7f)), i32x4.splat(0x7fc00000));
  const sign = i32x4.shl(v128.and(bits, i32x4.splat(0x80)), 24);
  const scaled = f32x4.mul(i32x4.shl(magnitude, 20), f32x4.splat(<f32>1.329227995784916e36)); // 2^120
  return v128.or(v128.or(scaled, nan), sign);
}

function widenBf16(source: usize, count: i32, target: usize): void {
  const end = target + (<usize>count << 2);
  for (; target < end; target += 32, source += 16) {
    const v = v128.load(source);
    v128.store(target, bf16Low(v));
    v128.store(target, bf16High(v), 16);
  }
}

function widenF16(source: usize, count: i32, target: usize): void {
  const end = target + (<usize>count << 2);
  for (; target < end; target += 32, source += 16) {
    const v = v128.load(source);
    v128.store(target, f16ToF32(i32x4.extend_low_i16x8_u(v)));
    v128.store(target, f16ToF32(i32x4.extend_high_i16x8_u(v)), 16);
  }
}

function widenFp8(source: usize, latentWidth: i32, ropeWidth: i32, target: usize): void {
  const scales = source + <usize>latentWidth;
  for (let i = 0; i < latentWidth; i += 16, target += 64) {
    const scale = v128.load32_splat(scales + (<usize>(i >> 7) << 2));
    const v = v128.load(source + <usize>i);
    const low = i16x8.extend_low_i8x16_u(v);
    const high = i16x8.extend_high_i8x16_u(v);
    v128.store(target, f32x4.mul(e4m3ToF32(i32x4.extend_low_i16x8_u(low)), scale));
    v128.store(target, f32x4.mul(e4m3ToF32(i32x4.extend_high_i16x8_u(low)), scale), 16);
    v128.store(target, f32x4.mul(e4m3ToF32(i32x4.extend_low_i16x8_u(high)), scale), 32);
    v128.store(target, f32x4.mul(e4m3ToF32(i32x4.extend_high_i16x8_u(high)), scale), 48);
  }
  widenBf16(scales + <usize>(latentWidth >> 5), ropeWidth, target);
}

/** Writes the latentWidth + ropeWidth values of the entry at `source` to `target` as f32, in order. */
export function loadLatentEntry(source: usize, dtype: i32, latentWidth: i32, ropeWidth: i32, target: usize): void {
  if (dtype == 3) widenFp8(source, latentWidth, ropeWidth, target);
  else if (dtype == 2) widenBf16(source, latentWidth + ropeWidth, target);
  else if (dtype == 1) widenF16(source, latentWidth + ropeWidth, target);
  else memory.copy(target, source, <usize>(latentWidth + ropeWidth) << 2);
}
