// Tiles of a projection: a few rows of x times a few weight rows. All sum a dot product in one order, blocks of BLOCK
// columns after one another and in each four lanes over k, so a value's bits do not depend on the tile it falls in.
//
// The shapes follow from V8: it moves the loads of a loop's body to its front, so sums and loaded values must fit the
// registers together (8 + 6 do, 12 + 8 spill and run at half the speed), and an early exit in the middle of a body is a
// border that loads do not cross.
import { sumLanes4 } from "./gemm.as";
import { multiplyAdd } from "./simd.as";
import { loadWeights, weightsHigh, weightsLow } from "./weights.as";

/** Columns whose sums are kept in registers: four packed weight rows of them are half a first-level cache. */
export const BLOCK: i32 = 1024;

/** One row x times four weight rows as stored: their sums over all `columns`. */
export function dotTile<T>(x: usize, w0: usize, w1: usize, w2: usize, w3: usize, columns: i32): v128 {
  const last = x + (<usize>columns << 2);
  let total = f32x4.splat(0);
  let isFirst = true;
  while (x < last) {
    const end = min(x + (<usize>BLOCK << 2), last);
    let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0;
    while (x < end) {
      const low = v128.load(x);
      const high = v128.load(x, 16);
      const r0 = v128.load(w0);
      const r1 = v128.load(w1);
      const r2 = v128.load(w2);
      const r3 = v128.load(w3);
      s0 = multiplyAdd(low, weightsLow<T>(r0), s0);
      s1 = multiplyAdd(low, weightsLow<T>(r1), s1);
      s2 = multiplyAdd(low, weightsLow<T>(r2), s2);
      s3 = multiplyAdd(low, weightsLow<T>(r3), s3);
      s0 = multiplyAdd(high, weightsHigh<T>(r0, w0), s0);
      s1 = multiplyAdd(high, weightsHigh<T>(r1, w1), s1);
      s2 = multiplyAdd(high, weightsHigh<T>(r2, w2), s2);
      s3 = multiplyAdd(high, weightsHigh<T>(r3, w3), s3);
      w0 += 8 * sizeof<T>();
      w1 += 8 * sizeof<T>();
      w2 += 8 * sizeof<T>();
      w3 += 8 * sizeof<T>();
      x += 32;
    }
    const sum = sumLanes4(s0, s1, s2, s3);
    total = isFirst ? sum : f32x4.add(total, sum);
    isFirst = false;
  }
  return total;
}

/** Columns of x that one tile, then the other uses: from the first-level cache the second time. */
const TURN: i32 = 128;

/**
 * One row x times two tiles, whose rows lie `step` bytes apart: the sums of each over all `columns`, as `dotTile` has them.
 * A wide x comes from the second-level cache for every tile, and takes a third of its speed; so it comes for two.
 */
export function dotTwoTiles<T>(
  x: usize, w0: usize, w1: usize, w2: usize, w3: usize, step: usize, columns: i32, sums: usize, otherSums: usize,
): void {
  let v0 = w0 + step, v1 = w1 + step, v2 = w2 + step, v3 = w3 + step;
  let isFirst = true;
  const last = x + (<usize>columns << 2);
  while (x < last) {
    const end = min(x + (<usize>BLOCK << 2), last);
    let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0, t0 = s0, t1 = s0, t2 = s0, t3 = s0;
    while (x < end) {
      const turnEnd = min(x + (<usize>TURN << 2), end);
      for (let at = x; at < turnEnd; at += 32) {
        const low = v128.load(at), high = v128.load(at, 16);
        const r0 = v128.load(w0), r1 = v128.load(w1), r2 = v128.load(w2), r3 = v128.load(w3);
        s0 = multiplyAdd(low, weightsLow<T>(r0), s0), s1 = multiplyAdd(low, weightsLow<T>(r1), s1);
        s2 = multiplyAdd(low, weightsLow<T>(r2), s2), s3 = multiplyAdd(low, weightsLow<T>(r3), s3);
        s0 = multiplyAdd(high, weightsHigh<T>(r0, w0), s0), s1 = multiplyAdd(high, weightsHigh<T>(r1, w1), s1);
        s2 = multiplyAdd(high, weightsHigh<T>(r2, w2), s2), s3 = multiplyAdd(high, weightsHigh<T>(r3, w3), s3);
        w0 += 8 * sizeof<T>(), w1 += 8 * sizeof<T>(), w2 += 8 * sizeof<T>(), w3 += 8 * sizeof<T>();
      }
      for (; x < turnEnd; x += 32) {
        const low = v128.load(x), high = v128.load(x, 16);
        const r0 = v128.load(v0), r1 = v128.load(v1), r2 = v128.load(v2), r3 = v128.load(v3);
        t0 = multiplyAdd(low, weightsLow<T>(r0), t0), t1 = multiplyAdd(low, weightsLow<T>(r1), t1);
        t2 = multiplyAdd(low, weightsLow<T>(r2), t2), t3 = multiplyAdd(low, weightsLow<T>(r3), t3);
        t0 = multiplyAdd(high, weightsHigh<T>(r0, v0), t0), t1 = multiplyAdd(high, weightsHigh<T>(r1, v1), t1);
        t2 = multiplyAdd(high, weightsHigh<T>(r2, v2), t2), t3 = multiplyAdd(high, weightsHigh<T>(r3, v3), t3);
        v0 += 8 * sizeof<T>(), v1 += 8 * sizeof<T>(), v2 += 8 * sizeof<T>(), v3 += 8 * sizeof<T>();
      }
    }
    const sum = sumLanes4(s0, s1, s2, s3), other = sumLanes4(t0, t1, t2, t3);
    v128.store(sums, isFirst ? sum : f32x4.add(v128.load(sums), sum));
    v128.store(otherSums, isFirst ? other : f32x4.add(v128.load(otherSums), other));
    isFirst = false;
  }
}

/** The sums of two rows with four weight rows each, stored or added. */
// @ts-ignore: decorator
@inline
function storeRows(sums: usize, first: v128, second: v128, isFirst: bool): void {
  if (!isFirst) {
    first = f32x4.add(v128.load(sums), first);
    second = f32x4.add(v128.load(sums, 16), second);
  }
  v128.store(sums, first);
  v128.store(sums, second, 16);
}

/** Two rows of x times a block of four weight rows as stored: sums [2, 4], stored or added. */
export function multiplyTwoRows<T>(
  x0: usize, x1: usize, w0: usize, w1: usize, w2: usize, w3: usize, columns: i32, sums: usize, isFirst: bool,
): void {
  let s00 = f32x4.splat(0), s01 = s00, s02 = s00, s03 = s00, s10 = s00, s11 = s00, s12 = s00, s13 = s00;
  const end = x0 + (<usize>columns << 2);
  while (x0 < end) {
    const a = v128.load(x0);
    const b = v128.load(x1);
    let w = loadWeights<T>(w0);
    s00 = multiplyAdd(a, w, s00);
    s10 = multiplyAdd(b, w, s10);
    w = loadWeights<T>(w1);
    s01 = multiplyAdd(a, w, s01);
    s11 = multiplyAdd(b, w, s11);
    w = loadWeights<T>(w2);
    s02 = multiplyAdd(a, w, s02);
    s12 = multiplyAdd(b, w, s12);
    w = loadWeights<T>(w3);
    s03 = multiplyAdd(a, w, s03);
    s13 = multiplyAdd(b, w, s13);
    x0 += 16;
    x1 += 16;
    w0 += 4 * sizeof<T>();
    w1 += 4 * sizeof<T>();
    w2 += 4 * sizeof<T>();
    w3 += 4 * sizeof<T>();
  }
  storeRows(sums, sumLanes4(s00, s01, s02, s03), sumLanes4(s10, s11, s12, s13), isFirst);
}

/** `v` holds two sums of one row and two of the next: stored or added at `sums` and 16 bytes on. */
// @ts-ignore: decorator
@inline
function storeHalves(sums: usize, v: v128, isFirst: bool): void {
  if (!isFirst) v = f32x4.add(v128.load_lane<i64>(sums, v128.load_zero<i64>(sums), 1, 16), v);
  v128.store_lane<i64>(sums, v, 0);
  v128.store_lane<i64>(sums, v, 1, 16);
}

/**
 * Four rows of x times a block of two weight rows as stored: sums [4, 2], 16 bytes from row to row, stored or added.
 * Four steps a turn spare two thirds of the pointers' moves; columns are a multiple of 8, so only the middle exit is taken.
 */
export function multiplyFourRows<T>(
  x0: usize, x1: usize, x2: usize, x3: usize, w0: usize, w1: usize, columns: i32, sums: usize, isFirst: bool,
): void {
  let s00 = f32x4.splat(0), s01 = s00, s10 = s00, s11 = s00, s20 = s00, s21 = s00, s30 = s00, s31 = s00;
  const end = x0 + (<usize>columns << 2);
  const end1 = end - 16, end2 = end - 32, end3 = end - 48;
  while (x0 < end) {
    let a = v128.load(x0), b = v128.load(x1), c = v128.load(x2), d = v128.load(x3);
    let v = loadWeights<T>(w0);
    let w = loadWeights<T>(w1);
    s00 = multiplyAdd(a, v, s00), s01 = multiplyAdd(a, w, s01);
    s10 = multiplyAdd(b, v, s10), s11 = multiplyAdd(b, w, s11);
    s20 = multiplyAdd(c, v, s20), s21 = multiplyAdd(c, w, s21);
    s30 = multiplyAdd(d, v, s30), s31 = multiplyAdd(d, w, s31);
    if (x0 == end1) break;
    a = v128.load(x0, 16), b = v128.load(x1, 16), c = v128.load(x2, 16), d = v128.load(x3, 16);
    v = loadWeights<T>(w0 + 4 * sizeof<T>());
    w = loadWeights<T>(w1 + 4 * sizeof<T>());
    s00 = multiplyAdd(a, v, s00), s01 = multiplyAdd(a, w, s01);
    s10 = multiplyAdd(b, v, s10), s11 = multiplyAdd(b, w, s11);
    s20 = multiplyAdd(c, v, s20), s21 = multiplyAdd(c, w, s21);
    s30 = multiplyAdd(d, v, s30), s31 = multiplyAdd(d, w, s31);
    if (x0 == end2) break;
    a = v128.load(x0, 32), b = v128.load(x1, 32), c = v128.load(x2, 32), d = v128.load(x3, 32);
    v = loadWeights<T>(w0 + 8 * sizeof<T>());
    w = loadWeights<T>(w1 + 8 * sizeof<T>());
    s00 = multiplyAdd(a, v, s00), s01 = multiplyAdd(a, w, s01);
    s10 = multiplyAdd(b, v, s10), s11 = multiplyAdd(b, w, s11);
    s20 = multiplyAdd(c, v, s20), s21 = multiplyAdd(c, w, s21);
    s30 = multiplyAdd(d, v, s30), s31 = multiplyAdd(d, w, s31);
    if (x0 == end3) break;
    a = v128.load(x0, 48), b = v128.load(x1, 48), c = v128.load(x2, 48), d = v128.load(x3, 48);
    v = loadWeights<T>(w0 + 12 * sizeof<T>());
    w = loadWeights<T>(w1 + 12 * sizeof<T>());
    s00 = multiplyAdd(a, v, s00), s01 = multiplyAdd(a, w, s01);
    s10 = multiplyAdd(b, v, s10), s11 = multiplyAdd(b, w, s11);
    s20 = multiplyAdd(c, v, s20), s21 = multiplyAdd(c, w, s21);
    s30 = multiplyAdd(d, v, s30), s31 = multiplyAdd(d, w, s31);
    x0 += 64, x1 += 64, x2 += 64, x3 += 64;
    w0 += 16 * sizeof<T>(), w1 += 16 * sizeof<T>();
  }
  storeHalves(sums, sumLanes4(s00, s01, s10, s11), isFirst);
  storeHalves(sums + 32, sumLanes4(s20, s21, s30, s31), isFirst);
}

/** `columns` values of four weight rows as f32 at `target`: four of each row in turn. */
export function packTile<T>(w0: usize, w1: usize, w2: usize, w3: usize, columns: i32, target: usize): void {
  const end = target + (<usize>columns << 4);
  while (target < end) {
    const r0 = v128.load(w0);
    const r1 = v128.load(w1);
    const r2 = v128.load(w2);
    const r3 = v128.load(w3);
    v128.store(target, weightsLow<T>(r0), 0);
    v128.store(target, weightsLow<T>(r1), 16);
    v128.store(target, weightsLow<T>(r2), 32);
    v128.store(target, weightsLow<T>(r3), 48);
    v128.store(target, weightsHigh<T>(r0, w0), 64);
    v128.store(target, weightsHigh<T>(r1, w1), 80);
    v128.store(target, weightsHigh<T>(r2, w2), 96);
    v128.store(target, weightsHigh<T>(r3, w3), 112);
    w0 += 8 * sizeof<T>();
    w1 += 8 * sizeof<T>();
    w2 += 8 * sizeof<T>();
    w3 += 8 * sizeof<T>();
    target += 128;
  }
}

/** Two rows of x times a block of a packed tile: sums [2, 4], stored or added. */
export function multiplyPacked(x0: usize, x1: usize, packed: usize, columns: i32, sums: usize, isFirst: bool): void {
  let s00 = f32x4.splat(0), s01 = s00, s02 = s00, s03 = s00, s10 = s00, s11 = s00, s12 = s00, s13 = s00;
  const end = packed + (<usize>columns << 4);
  while (packed < end) {
    const a = v128.load(x0);
    const b = v128.load(x1);
    let w = v128.load(packed);
    s00 = multiplyAdd(a, w, s00);
    s10 = multiplyAdd(b, w, s10);
    w = v128.load(packed, 16);
    s01 = multiplyAdd(a, w, s01);
    s11 = multiplyAdd(b, w, s11);
    w = v128.load(packed, 32);
    s02 = multiplyAdd(a, w, s02);
    s12 = multiplyAdd(b, w, s12);
    w = v128.load(packed, 48);
    s03 = multiplyAdd(a, w, s03);
    s13 = multiplyAdd(b, w, s13);
    x0 += 16;
    x1 += 16;
    packed += 64;
  }
  storeRows(sums, sumLanes4(s00, s01, s02, s03), sumLanes4(s10, s11, s12, s13), isFirst);
}
