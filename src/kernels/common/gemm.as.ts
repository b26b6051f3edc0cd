// Micro-kernels of matrix products. Every dot product is summed in one order: four lanes over k, then
// (0 + 2) + (1 + 3), so a value's bits depend neither on the tile it falls in nor on the rows beside it.
import { multiplyAdd } from "./simd.as";
import { BF16, F16, weightSize, weightsHigh, weightsLow } from "./weights.as";

/** The sums of the lanes of a, b, c, d, each in the order of `sumLanes`. */
// @ts-ignore: decorator
@inline
export function sumLanes4(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(v128.shuffle<i64>(a, b, 0, 2), v128.shuffle<i64>(a, b, 1, 3));
  const cd = f32x4.add(v128.shuffle<i64>(c, d, 0, 2), v128.shuffle<i64>(c, d, 1, 3));
  return f32x4.add(v128.shuffle<f32>(ab, cd, 0, 2, 4, 6), v128.shuffle<f32>(ab, cd, 1, 3, 5, 7));
}

function packAs<T>(source: usize, rowBytes: usize, last: i32, columns: i32, target: usize): void {
  let w0 = source;
  let w1 = source + <usize>min(1, last) * rowBytes;
  let w2 = source + <usize>min(2, last) * rowBytes;
  let w3 = source + <usize>min(3, last) * rowBytes;
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

/**
 * Packs up to four rows of B (`rows` 1–4, the last one repeated; `columns` a multiple of 8) as f32 at `target`: four
 * values of each row in turn, 16·columns bytes.
 */
export function packRows(
  dtype: i32,
  source: usize,
  rowBytes: usize,
  rows: i32,
  columns: i32,
  target: usize,
): void {
  if (dtype == BF16) packAs<u16>(source, rowBytes, rows - 1, columns, target);
  else if (dtype == F16) packAs<i16>(source, rowBytes, rows - 1, columns, target);
  else packAs<f32>(source, rowBytes, rows - 1, columns, target);
}

/** Two rows of A (f32) times four packed rows of B: result f32 [2, 4]. */
export function dotTile2x4(a0: usize, a1: usize, packed: usize, columns: i32, result: usize): void {
  let s00 = f32x4.splat(0);
  let s01 = s00;
  let s02 = s00;
  let s03 = s00;
  let s10 = s00;
  let s11 = s00;
  let s12 = s00;
  let s13 = s00;
  const end = packed + (<usize>columns << 4);
  while (packed < end) {
    const x0 = v128.load(a0);
    const x1 = v128.load(a1);
    let w = v128.load(packed);
    s00 = multiplyAdd(x0, w, s00);
    s10 = multiplyAdd(x1, w, s10);
    w = v128.load(packed, 16);
    s01 = multiplyAdd(x0, w, s01);
    s11 = multiplyAdd(x1, w, s11);
    w = v128.load(packed, 32);
    s02 = multiplyAdd(x0, w, s02);
    s12 = multiplyAdd(x1, w, s12);
    w = v128.load(packed, 48);
    s03 = multiplyAdd(x0, w, s03);
    s13 = multiplyAdd(x1, w, s13);
    a0 += 16;
    a1 += 16;
    packed += 64;
  }
  v128.store(result, sumLanes4(s00, s01, s02, s03));
  v128.store(result, sumLanes4(s10, s11, s12, s13), 16);
}

function dotRows4As<T>(x: usize, source: usize, rowBytes: usize, last: i32, columns: i32): v128 {
  let w0 = source;
  let w1 = source + <usize>min(1, last) * rowBytes;
  let w2 = source + <usize>min(2, last) * rowBytes;
  let w3 = source + <usize>min(3, last) * rowBytes;
  let s0 = f32x4.splat(0);
  let s1 = s0;
  let s2 = s0;
  let s3 = s0;
  const end = x + (<usize>columns << 2);
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
  return sumLanes4(s0, s1, s2, s3);
}

/**
 * One row x (f32) times up to four rows of B as stored (`rows` 1–4, the last one repeated): four dot products with the
 * bits of `dotTile2x4`.
 */
export function dotRows4(dtype: i32, x: usize, source: usize, rowBytes: usize, rows: i32, columns: i32): v128 {
  if (dtype == BF16) return dotRows4As<u16>(x, source, rowBytes, rows - 1, columns);
  if (dtype == F16) return dotRows4As<i16>(x, source, rowBytes, rows - 1, columns);
  return dotRows4As<f32>(x, source, rowBytes, rows - 1, columns);
}

/** Bytes of a row of `columns` weights. */
// @ts-ignore: decorator
@inline
export function rowBytesOf(dtype: i32, columns: i32): usize {
  return <usize>columns * weightSize(dtype);
}

/** Stores the first `count` (1–4) lanes of `v`. */
export function storeLanes(target: usize, v: v128, count: i32): void {
  if (count >= 4) {
    v128.store(target, v);
    return;
  }
  store<f32>(target, f32x4.extract_lane(v, 0));
  if (count > 1) store<f32>(target, f32x4.extract_lane(v, 1), 4);
  if (count > 2) store<f32>(target, f32x4.extract_lane(v, 2), 8);
}

/** Loads `count` (1–4) floats; the lanes past them are zero. */
export function loadLanes(source: usize, count: i32): v128 {
  if (count >= 4) return v128.load(source);
  let v = f32x4.replace_lane(f32x4.splat(0), 0, load<f32>(source));
  if (count > 1) v = f32x4.replace_lane(v, 1, load<f32>(source, 4));
  if (count > 2) v = f32x4.replace_lane(v, 2, load<f32>(source, 8));
  return v;
}

function addRow(p: usize, v: usize, vStride: usize, count: i32, columns: i32, out: usize): void {
  for (let c: usize = 0; c < <usize>columns << 2; c += 32) {
    let low = v128.load(out + c);
    let high = v128.load(out + c, 16);
    let at = v + c;
    for (let t: usize = 0; t < <usize>count << 2; t += 4) {
      const weight = v128.load32_splat(p + t);
      low = multiplyAdd(weight, v128.load(at), low);
      high = multiplyAdd(weight, v128.load(at, 16), high);
      at += vStride;
    }
    v128.store(out + c, low);
    v128.store(out + c, high, 16);
  }
}

function addRows4(
  p: usize,
  pStride: usize,
  v: usize,
  vStride: usize,
  count: i32,
  columns: i32,
  out: usize,
  outStride: usize,
): void {
  for (let c: usize = 0; c < <usize>columns << 2; c += 32) {
    const o0 = out + c;
    const o1 = o0 + outStride;
    const o2 = o1 + outStride;
    const o3 = o2 + outStride;
    let s00 = v128.load(o0);
    let s01 = v128.load(o0, 16);
    let s10 = v128.load(o1);
    let s11 = v128.load(o1, 16);
    let s20 = v128.load(o2);
    let s21 = v128.load(o2, 16);
    let s30 = v128.load(o3);
    let s31 = v128.load(o3, 16);
    let at = v + c;
    let p0 = p;
    const end = p + (<usize>count << 2);
    const pStride3 = pStride * 3;
    while (p0 < end) {
      const low = v128.load(at);
      const high = v128.load(at, 16);
      let weight = v128.load32_splat(p0);
      s00 = multiplyAdd(weight, low, s00);
      s01 = multiplyAdd(weight, high, s01);
      weight = v128.load32_splat(p0 + pStride);
      s10 = multiplyAdd(weight, low, s10);
      s11 = multiplyAdd(weight, high, s11);
      weight = v128.load32_splat(p0 + (pStride << 1));
      s20 = multiplyAdd(weight, low, s20);
      s21 = multiplyAdd(weight, high, s21);
      weight = v128.load32_splat(p0 + pStride3);
      s30 = multiplyAdd(weight, low, s30);
      s31 = multiplyAdd(weight, high, s31);
      p0 += 4;
      at += vStride;
    }
    v128.store(o0, s00);
    v128.store(o0, s01, 16);
    v128.store(o1, s10);
    v128.store(o1, s11, 16);
    v128.store(o2, s20);
    v128.store(o2, s21, 16);
    v128.store(o3, s30);
    v128.store(o3, s31, 16);
  }
}

/**
 * out [rows, columns] += P [rows, count] · V [count, columns], all f32, strides in bytes, columns a multiple of 8;
 * summed over t in order whatever the number of rows.
 */
export function addProduct(
  rows: i32,
  p: usize,
  pStride: usize,
  v: usize,
  vStride: usize,
  count: i32,
  columns: i32,
  out: usize,
  outStride: usize,
): void {
  for (; rows >= 4; rows -= 4) {
    addRows4(p, pStride, v, vStride, count, columns, out, outStride);
    p += pStride << 2;
    out += outStride << 2;
  }
  for (; rows > 0; rows--) {
    addRow(p, v, vStride, count, columns, out);
    p += pStride;
    out += outStride;
  }
}
