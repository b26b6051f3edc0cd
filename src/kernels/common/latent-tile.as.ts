// A tile of latent cache entries as float32, four channels of every token together: values 4i…4i + 3 of token t at
// i·TILE_STRIDE + 16t. Dot products read four tokens' vectors side by side, sums over tokens read one token after another,
// and both walk with one pointer and constant offsets.
import { e4m3ToF32, f16ToF32 } from "./latent.as";
import { bf16High, bf16Low } from "./simd.as";

/** Tokens of a tile. */
export const TILE: i32 = 64;
/** Bytes from four channels to the next four: one cache line more than the tokens take, so that rows fall into all sets. */
export const TILE_STRIDE: usize = (<usize>TILE << 4) + 64;

/** Eight f32 (T f32), f16 (i16) or bf16 (u16) values at `source` to two vectors of a token. */
// @ts-ignore: decorator
@inline
function widen8<T>(source: usize, target: usize): void {
  const raw = v128.load(source);
  if (isFloat<T>()) {
    v128.store(target, raw);
    v128.store(target, v128.load(source, 16), TILE_STRIDE);
  } else if (isSigned<T>()) {
    v128.store(target, f16ToF32(i32x4.extend_low_i16x8_u(raw)));
    v128.store(target, f16ToF32(i32x4.extend_high_i16x8_u(raw)), TILE_STRIDE);
  } else {
    v128.store(target, bf16Low(raw));
    v128.store(target, bf16High(raw), TILE_STRIDE);
  }
}

/** `count` values (a multiple of 8) to the token at `target`. */
function widen<T>(source: usize, count: i32, target: usize): void {
  const end = source + <usize>count * sizeof<T>();
  for (; source < end; source += 8 * sizeof<T>(), target += 2 * TILE_STRIDE) widen8<T>(source, target);
}

/** The e4m3 values of an fp8 entry, times the scale of their 128, to one token. */
function widenFp8(source: usize, latentWidth: i32, target: usize): void {
  const scales = source + <usize>latentWidth;
  for (let i: usize = 0; i < <usize>latentWidth; i += 16) {
    const scale = v128.load32_splat(scales + ((i >> 7) << 2));
    const v = v128.load(source + i);
    const low = i16x8.extend_low_i8x16_u(v);
    const high = i16x8.extend_high_i8x16_u(v);
    v128.store(target, f32x4.mul(e4m3ToF32(i32x4.extend_low_i16x8_u(low)), scale));
    v128.store(target, f32x4.mul(e4m3ToF32(i32x4.extend_high_i16x8_u(low)), scale), TILE_STRIDE);
    v128.store(target, f32x4.mul(e4m3ToF32(i32x4.extend_low_i16x8_u(high)), scale), 2 * TILE_STRIDE);
    v128.store(target, f32x4.mul(e4m3ToF32(i32x4.extend_high_i16x8_u(high)), scale), 3 * TILE_STRIDE);
    target += 4 * TILE_STRIDE;
  }
}

// @ts-ignore: decorator
@inline
function widenEntry(source: usize, dtype: i32, latentWidth: i32, ropeWidth: i32, target: usize): void {
  if (dtype == 2) widen<u16>(source, latentWidth + ropeWidth, target);
  else if (dtype == 1) widen<i16>(source, latentWidth + ropeWidth, target);
  else if (dtype == 0) widen<f32>(source, latentWidth + ropeWidth, target);
  else {
    widenFp8(source, latentWidth, target);
    const rope = source + <usize>(latentWidth + (latentWidth >> 5));
    widen<u16>(rope, ropeWidth, target + <usize>(latentWidth >> 2) * TILE_STRIDE);
  }
}

/**
 * Tokens 0…`count` − 1 of a tile from the entries whose addresses are at `entries`, latentWidth + ropeWidth values each;
 * the rest of the last four repeats the last entry, so that nothing but entries is ever read. One entry after another:
 * a processor follows one stream of memory better than four.
 */
export function widenTile(entries: usize, count: i32, dtype: i32, latentWidth: i32, ropeWidth: i32, tile: usize): void {
  const padded = (count + 3) & ~3;
  for (let t = 0; t < padded; t++) {
    const source = load<usize>(entries + (<usize>min(t, count - 1) << 2));
    widenEntry(source, dtype, latentWidth, ropeWidth, tile + (<usize>t << 4));
  }
}
