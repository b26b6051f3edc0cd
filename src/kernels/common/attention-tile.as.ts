// Register tiles of attention: dot products of row blocks, exp2 and log2, an online softmax step, P·V.
import { multiplyAdd } from "./simd.as";

/** Where a running maximum starts: under every score, and finite, so that no difference is NaN. */
export const LOWEST: f32 = -1e30;

/** The sums of the lanes of a, b, c, d, as four lanes. */
// @ts-ignore: decorator
@inline
export function sumLanes4(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(v128.shuffle<f32>(a, b, 0, 4, 1, 5), v128.shuffle<f32>(a, b, 2, 6, 3, 7));
  const cd = f32x4.add(v128.shuffle<f32>(c, d, 0, 4, 1, 5), v128.shuffle<f32>(c, d, 2, 6, 3, 7));
  return f32x4.add(v128.shuffle<f32>(ab, cd, 0, 1, 4, 5), v128.shuffle<f32>(ab, cd, 2, 3, 6, 7));
}

/** Dot products of row `x` with four rows from `y` on, `bytes` long and apart (a multiple of 16). */
export function dot1x4(x: usize, y: usize, bytes: usize, out: usize): void {
  let a = f32x4.splat(0), b = f32x4.splat(0), c = f32x4.splat(0), d = f32x4.splat(0);
  const y1 = y + bytes, y2 = y1 + bytes, y3 = y2 + bytes;
  for (let i: usize = 0; i < bytes; i += 16) {
    const v = v128.load(x + i);
    a = multiplyAdd(v, v128.load(y + i), a);
    b = multiplyAdd(v, v128.load(y1 + i), b);
    c = multiplyAdd(v, v128.load(y2 + i), c);
    d = multiplyAdd(v, v128.load(y3 + i), d);
  }
  v128.store(out, sumLanes4(a, b, c, d));
}

/** Dot products of two rows from `x` on with four rows from `y` on, to `out` and `out + outStride`. */
export function dot2x4(x: usize, y: usize, bytes: usize, out: usize, outStride: usize): void {
  let a0 = f32x4.splat(0), b0 = f32x4.splat(0), c0 = f32x4.splat(0), d0 = f32x4.splat(0);
  let a1 = f32x4.splat(0), b1 = f32x4.splat(0), c1 = f32x4.splat(0), d1 = f32x4.splat(0);
  const x1 = x + bytes, y1 = y + bytes, y2 = y1 + bytes, y3 = y2 + bytes;
  for (let i: usize = 0; i < bytes; i += 16) {
    const v0 = v128.load(x + i);
    const v1 = v128.load(x1 + i);
    let w = v128.load(y + i);
    a0 = multiplyAdd(v0, w, a0);
    a1 = multiplyAdd(v1, w, a1);
    w = v128.load(y1 + i);
    b0 = multiplyAdd(v0, w, b0);
    b1 = multiplyAdd(v1, w, b1);
    w = v128.load(y2 + i);
    c0 = multiplyAdd(v0, w, c0);
    c1 = multiplyAdd(v1, w, c1);
    w = v128.load(y3 + i);
    d0 = multiplyAdd(v0, w, d0);
    d1 = multiplyAdd(v1, w, d1);
  }
  v128.store(out, sumLanes4(a0, b0, c0, d0));
  v128.store(out + outStride, sumLanes4(a1, b1, c1, d1));
}

/**
 * out[i, j] = x[i]·y[j] for `rows` rows of x and `columns` (rounded up to 4) rows of y, all `bytes` long and apart.
 * A row's result does not depend on the number of rows.
 */
export function dotBlock(x: usize, rows: i32, y: usize, columns: i32, bytes: usize, out: usize, outStride: usize): void {
  for (let j = 0; j < columns; j += 4) {
    const yj = y + <usize>j * bytes;
    const outJ = out + (<usize>j << 2);
    let i = 0;
    for (; i + 2 <= rows; i += 2) dot2x4(x + <usize>i * bytes, yj, bytes, outJ + <usize>i * outStride, outStride);
    if (i < rows) dot1x4(x + <usize>i * bytes, yj, bytes, outJ + <usize>i * outStride);
  }
}

/** 2^x per lane for x ≤ 127, within 1.5e-7 relative; exactly 0 from −127 down. Taylor's series to degree 7. */
export function exp2Lanes(x: v128): v128 {
  const bounded = f32x4.max(x, f32x4.splat(-127));
  const whole = f32x4.nearest(bounded);
  const f = f32x4.sub(bounded, whole);
  let p = f32x4.splat(<f32>1.525273380405984e-5);
  p = multiplyAdd(p, f, f32x4.splat(<f32>1.540353039338161e-4));
  p = multiplyAdd(p, f, f32x4.splat(<f32>1.3333558146428443e-3));
  p = multiplyAdd(p, f, f32x4.splat(<f32>9.618129107628477e-3));
  p = multiplyAdd(p, f, f32x4.splat(<f32>5.550410866482158e-2));
  p = multiplyAdd(p, f, f32x4.splat(<f32>0.2402265069591007));
  p = multiplyAdd(p, f, f32x4.splat(<f32>0.6931471805599453));
  p = multiplyAdd(p, f, f32x4.splat(1));
  const power = i32x4.shl(i32x4.add(i32x4.trunc_sat_f32x4_s(whole), i32x4.splat(127)), 23);
  return f32x4.mul(p, power);
}

/** ln x for a positive normal x, in float64: the exponent and 2·artanh((m − 1) / (m + 1)) to degree 15. */
export function naturalLog(x: f64): f64 {
  const bits = reinterpret<u64>(x);
  let exponent = <i32>((bits >> 52) & 0x7ff) - 1023;
  let mantissa = reinterpret<f64>((bits & 0xfffffffffffff) | 0x3ff0000000000000);
  if (mantissa > 1.4142135623730951) {
    mantissa *= 0.5;
    exponent++;
  }
  const s = (mantissa - 1) / (mantissa + 1);
  const t = s * s;
  let sum: f64 = 1.0 / 15;
  for (let k = 13; k > 0; k -= 2) sum = sum * t + 1.0 / <f64>k;
  return <f64>exponent * 0.6931471805599453 + 2 * s * sum;
}

// @ts-ignore: decorator
@inline
function maxLanes(v: v128): f32 {
  const pairs = f32x4.max(v, v128.shuffle<f32>(v, v, 2, 3, 0, 1));
  return max(f32x4.extract_lane(pairs, 0), f32x4.extract_lane(pairs, 1));
}

/**
 * One step of the online softmax (Milakov & Gimelshein 2018) of a row of `count` base-2 scores (a multiple of 4; −∞ is
 * masked): turns them into 2^(score − max), updates the row's max and sum at `state`, and rescales the
 * `channels` values at `out` when the max rose.
 */
export function softmaxStep(scores: usize, count: i32, state: usize, out: usize, channels: i32): void {
  const end = scores + (<usize>count << 2);
  const before = load<f32>(state);
  let highest = f32x4.splat(before);
  for (let at = scores; at < end; at += 16) highest = f32x4.max(highest, v128.load(at));
  const after = maxLanes(highest);
  const shift = f32x4.splat(after);
  let sums = f32x4.splat(0);
  for (let at = scores; at < end; at += 16) {
    const p = exp2Lanes(f32x4.sub(v128.load(at), shift));
    v128.store(at, p);
    sums = f32x4.add(sums, p);
  }
  const sum = f32x4.extract_lane(sumLanes4(sums, sums, sums, sums), 0);
  store<f32>(state, after);
  if (after == before) {
    store<f32>(state, load<f32>(state, 4) + sum, 4);
    return;
  }
  const factor = exp2Lanes(f32x4.splat(before - after));
  store<f32>(state, load<f32>(state, 4) * f32x4.extract_lane(factor, 0) + sum, 4);
  const outEnd = out + (<usize>channels << 2);
  for (let at = out; at < outEnd; at += 16) v128.store(at, f32x4.mul(v128.load(at), factor));
}

/** out[0…3, 0…7] += p[0…3, t]·v[t, 0…7] over `count` t; strides in bytes. */
function accumulate4x8(p: usize, pStride: usize, v: usize, vStride: usize, count: i32, out: usize, outStride: usize): void {
  const out1 = out + outStride, out2 = out1 + outStride, out3 = out2 + outStride;
  let a0 = v128.load(out), b0 = v128.load(out, 16);
  let a1 = v128.load(out1), b1 = v128.load(out1, 16);
  let a2 = v128.load(out2), b2 = v128.load(out2, 16);
  let a3 = v128.load(out3), b3 = v128.load(out3, 16);
  const p1 = p + pStride, p2 = p1 + pStride, p3 = p2 + pStride;
  const bytes = <usize>count << 2;
  for (let t: usize = 0; t < bytes; t += 4) {
    const va = v128.load(v), vb = v128.load(v, 16);
    v += vStride;
    let w = v128.load32_splat(p + t);
    a0 = multiplyAdd(w, va, a0);
    b0 = multiplyAdd(w, vb, b0);
    w = v128.load32_splat(p1 + t);
    a1 = multiplyAdd(w, va, a1);
    b1 = multiplyAdd(w, vb, b1);
    w = v128.load32_splat(p2 + t);
    a2 = multiplyAdd(w, va, a2);
    b2 = multiplyAdd(w, vb, b2);
    w = v128.load32_splat(p3 + t);
    a3 = multiplyAdd(w, va, a3);
    b3 = multiplyAdd(w, vb, b3);
  }
  v128.store(out, a0);
  v128.store(out, b0, 16);
  v128.store(out1, a1);
  v128.store(out1, b1, 16);
  v128.store(out2, a2);
  v128.store(out2, b2, 16);
  v128.store(out3, a3);
  v128.store(out3, b3, 16);
}

/**
 * out += p·v for `rows` rows (rounded up to 4: p and out have room for them) of p [rows, count], v [count, channels],
 * out [rows, channels]; channels a multiple of 8, strides in bytes.
 */
export function accumulateBlock(
  p: usize, pStride: usize, rows: i32, v: usize, vStride: usize, count: i32, out: usize, channels: i32,
): void {
  const outStride = <usize>channels << 2;
  for (let c: usize = 0; c < outStride; c += 32) {
    for (let i = 0; i < rows; i += 4) {
      accumulate4x8(p + <usize>i * pStride, pStride, v + c, vStride, count, out + <usize>i * outStride + c, outStride);
    }
  }
}
