// Matrix products on panels: eight rows of f32 side by side, value k of all eight at k·32 bytes. A product of two
// panels sums over k in order, so its bits do not depend on the rows beside.
import { multiplyAdd } from "./simd.as";
import { BF16, F16, weightsHigh, weightsLow } from "./weights.as";

/** Four rows' values at one k of a panel, for four k from the rows a…d. */
// @ts-ignore: decorator
@inline
function storeTransposed(a: v128, b: v128, c: v128, d: v128, target: usize): void {
  const ab0 = v128.shuffle<i32>(a, b, 0, 4, 1, 5);
  const ab1 = v128.shuffle<i32>(a, b, 2, 6, 3, 7);
  const cd0 = v128.shuffle<i32>(c, d, 0, 4, 1, 5);
  const cd1 = v128.shuffle<i32>(c, d, 2, 6, 3, 7);
  v128.store(target, v128.shuffle<i64>(ab0, cd0, 0, 2));
  v128.store(target, v128.shuffle<i64>(ab0, cd0, 1, 3), 32);
  v128.store(target, v128.shuffle<i64>(ab1, cd1, 0, 2), 64);
  v128.store(target, v128.shuffle<i64>(ab1, cd1, 1, 3), 96);
}

function packHalf<T>(source: usize, rowBytes: usize, last: i32, count: i32, target: usize): void {
  let a = source;
  let b = source + <usize>min(1, last) * rowBytes;
  let c = source + <usize>min(2, last) * rowBytes;
  let d = source + <usize>min(3, last) * rowBytes;
  const end = target + (<usize>count << 5);
  while (target < end) {
    const va = v128.load(a);
    const vb = v128.load(b);
    const vc = v128.load(c);
    const vd = v128.load(d);
    storeTransposed(weightsLow<T>(va), weightsLow<T>(vb), weightsLow<T>(vc), weightsLow<T>(vd), target);
    storeTransposed(weightsHigh<T>(va, a), weightsHigh<T>(vb, b), weightsHigh<T>(vc, c), weightsHigh<T>(vd, d), target + 128);
    a += sizeof<T>() << 3;
    b += sizeof<T>() << 3;
    c += sizeof<T>() << 3;
    d += sizeof<T>() << 3;
    target += 256;
  }
}

function packAs<T>(source: usize, rowBytes: usize, rows: i32, count: i32, target: usize): void {
  packHalf<T>(source, rowBytes, min(rows, 4) - 1, count, target);
  const next = min(rows - 1, 4);
  packHalf<T>(source + <usize>next * rowBytes, rowBytes, max(rows - next, 1) - 1, count, target + 16);
}

/** Packs `rows` (1–8, the last one repeated) rows of `count` values (a multiple of 8), `rowBytes` apart, as a panel. */
export function packPanel(dtype: i32, source: usize, rowBytes: usize, rows: i32, count: i32, target: usize): void {
  if (dtype == BF16) packAs<u16>(source, rowBytes, rows, count, target);
  else if (dtype == F16) packAs<i16>(source, rowBytes, rows, count, target);
  else packAs<f32>(source, rowBytes, rows, count, target);
}

/**
 * c [4, 8] = Σ_k a[k][0…3]ᵀ · b[k][0…7]; `a` is one half of a panel, `b` a panel; c contiguous. Inline, because V8
 * unrolls a loop that lies in other loops, and does not unroll one that is a function by itself.
 */
// @ts-ignore: decorator
@inline
export function panelTile(a: usize, b: usize, count: i32, c: usize): void {
  let s00 = f32x4.splat(0), s01 = s00, s10 = s00, s11 = s00, s20 = s00, s21 = s00, s30 = s00, s31 = s00;
  const end = b + (<usize>count << 5);
  while (b < end) {
    const low = v128.load(b);
    const high = v128.load(b, 16);
    let x = v128.load32_splat(a);
    s00 = multiplyAdd(x, low, s00);
    s01 = multiplyAdd(x, high, s01);
    x = v128.load32_splat(a, 4);
    s10 = multiplyAdd(x, low, s10);
    s11 = multiplyAdd(x, high, s11);
    x = v128.load32_splat(a, 8);
    s20 = multiplyAdd(x, low, s20);
    s21 = multiplyAdd(x, high, s21);
    x = v128.load32_splat(a, 12);
    s30 = multiplyAdd(x, low, s30);
    s31 = multiplyAdd(x, high, s31);
    a += 32;
    b += 32;
  }
  v128.store(c, s00);
  v128.store(c, s01, 16);
  v128.store(c, s10, 32);
  v128.store(c, s11, 48);
  v128.store(c, s20, 64);
  v128.store(c, s21, 80);
  v128.store(c, s30, 96);
  v128.store(c, s31, 112);
}

/** Four rows of 8 values from `c` on, `stride` bytes apart: c = factor·c + Σ_k a[k]ᵀ·b[k], a factor a row at `factors`. */
export function panelTileAdd(a: usize, b: usize, count: i32, factors: usize, c: usize, stride: usize): void {
  const c1 = c + stride, c2 = c1 + stride, c3 = c2 + stride;
  let x = v128.load32_splat(factors);
  let s00 = f32x4.mul(x, v128.load(c)), s01 = f32x4.mul(x, v128.load(c, 16));
  x = v128.load32_splat(factors, 4);
  let s10 = f32x4.mul(x, v128.load(c1)), s11 = f32x4.mul(x, v128.load(c1, 16));
  x = v128.load32_splat(factors, 8);
  let s20 = f32x4.mul(x, v128.load(c2)), s21 = f32x4.mul(x, v128.load(c2, 16));
  x = v128.load32_splat(factors, 12);
  let s30 = f32x4.mul(x, v128.load(c3)), s31 = f32x4.mul(x, v128.load(c3, 16));
  const end = b + (<usize>count << 5);
  while (b < end) {
    const low = v128.load(b);
    const high = v128.load(b, 16);
    x = v128.load32_splat(a);
    s00 = multiplyAdd(x, low, s00);
    s01 = multiplyAdd(x, high, s01);
    x = v128.load32_splat(a, 4);
    s10 = multiplyAdd(x, low, s10);
    s11 = multiplyAdd(x, high, s11);
    x = v128.load32_splat(a, 8);
    s20 = multiplyAdd(x, low, s20);
    s21 = multiplyAdd(x, high, s21);
    x = v128.load32_splat(a, 12);
    s30 = multiplyAdd(x, low, s30);
    s31 = multiplyAdd(x, high, s31);
    a += 32;
    b += 32;
  }
  v128.store(c, s00);
  v128.store(c, s01, 16);
  v128.store(c1, s10);
  v128.store(c1, s11, 16);
  v128.store(c2, s20);
  v128.store(c2, s21, 16);
  v128.store(c3, s30);
  v128.store(c3, s31, 16);
}
