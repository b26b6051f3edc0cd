// Products with a head's rows of W_UK and W_UV, as stored. The rows are short and read once, so what counts is how memory is
// read: of n rows, tile i takes the rows i, t + i, 2t + i and 3t + i with t = ⌈n / 4⌉, so that each of the four streams
// runs through a quarter of the head's weights. The README of mla-epilogue has the numbers.
import { sumLanes4 } from "./gemm.as";
import { multiplyAdd } from "./simd.as";
import { BF16, F16, weightsHigh, weightsLow } from "./weights.as";

function dotFourAs<T>(x: usize, w0: usize, w1: usize, w2: usize, w3: usize, columns: i32): v128 {
  let a = f32x4.splat(0), b = a, c = a, d = a;
  const end = x + (<usize>columns << 2);
  while (x < end) {
    const x0 = v128.load(x), x1 = v128.load(x, 16);
    const ra = v128.load(w0), rb = v128.load(w1), rc = v128.load(w2), rd = v128.load(w3);
    a = multiplyAdd(x0, weightsLow<T>(ra), a);
    b = multiplyAdd(x0, weightsLow<T>(rb), b);
    c = multiplyAdd(x0, weightsLow<T>(rc), c);
    d = multiplyAdd(x0, weightsLow<T>(rd), d);
    a = multiplyAdd(x1, weightsHigh<T>(ra, w0), a);
    b = multiplyAdd(x1, weightsHigh<T>(rb, w1), b);
    c = multiplyAdd(x1, weightsHigh<T>(rc, w2), c);
    d = multiplyAdd(x1, weightsHigh<T>(rd, w3), d);
    x += 32;
    w0 += 8 * sizeof<T>();
    w1 += 8 * sizeof<T>();
    w2 += 8 * sizeof<T>();
    w3 += 8 * sizeof<T>();
  }
  return sumLanes4(a, b, c, d);
}

/** x [columns] times the four rows at w0…w3. */
export function dotFour(dtype: i32, x: usize, w0: usize, w1: usize, w2: usize, w3: usize, columns: i32): v128 {
  if (dtype == BF16) return dotFourAs<u16>(x, w0, w1, w2, w3, columns);
  if (dtype == F16) return dotFourAs<i16>(x, w0, w1, w2, w3, columns);
  return dotFourAs<f32>(x, w0, w1, w2, w3, columns);
}

/** out[c] += Σ q[j]·w[j][c] over the four rows j at w, w + step, …, `columns` values each; q lies `qStep` bytes apart. */
export function addFour<T>(q: usize, qStep: usize, w: usize, step: usize, columns: usize, out: usize): void {
  const qa = v128.load32_splat(q), qb = v128.load32_splat(q + qStep);
  const qc = v128.load32_splat(q + 2 * qStep), qd = v128.load32_splat(q + 3 * qStep);
  const end = w + columns * sizeof<T>();
  let w1 = w + step, w2 = w1 + step, w3 = w2 + step;
  while (w < end) {
    const a = v128.load(w), b = v128.load(w1), c = v128.load(w2), d = v128.load(w3);
    let low = multiplyAdd(weightsLow<T>(a), qa, v128.load(out));
    let high = multiplyAdd(weightsHigh<T>(a, w), qa, v128.load(out, 16));
    low = multiplyAdd(weightsLow<T>(b), qb, low);
    high = multiplyAdd(weightsHigh<T>(b, w1), qb, high);
    low = multiplyAdd(weightsLow<T>(c), qc, low);
    high = multiplyAdd(weightsHigh<T>(c, w2), qc, high);
    v128.store(out, multiplyAdd(weightsLow<T>(d), qd, low));
    v128.store(out, multiplyAdd(weightsHigh<T>(d, w3), qd, high), 16);
    w += 8 * sizeof<T>();
    w1 += 8 * sizeof<T>();
    w2 += 8 * sizeof<T>();
    w3 += 8 * sizeof<T>();
    out += 32;
  }
}

/**
 * Four rows of q times `quarter` · 4 rows of w for 8 columns, in the order of `addFour` for each: out [4, 8] = Σ q[j]·w[j].
 * q [4 · quarter, 4] holds the rows' values side by side in the order of the sum; `outs` are the addresses of the four
 * results. The breaks are never taken: V8 moves no load across them, which leaves the sums in registers.
 */
export function multiplyFour<T>(q: usize, w: usize, step: usize, rowBytes: usize, quarter: usize, outs: usize, at: usize): void {
  let s00 = f32x4.splat(0), s01 = s00, s10 = s00, s11 = s00, s20 = s00, s21 = s00, s30 = s00, s31 = s00;
  let w1 = w + step, w2 = w1 + step, w3 = w2 + step;
  const end = q + (quarter << 6);
  while (q < end) {
    let raw = v128.load(w);
    let low = weightsLow<T>(raw), high = weightsHigh<T>(raw, w);
    let x = v128.load32_splat(q);
    s00 = multiplyAdd(low, x, s00), s01 = multiplyAdd(high, x, s01);
    x = v128.load32_splat(q, 4);
    s10 = multiplyAdd(low, x, s10), s11 = multiplyAdd(high, x, s11);
    x = v128.load32_splat(q, 8);
    s20 = multiplyAdd(low, x, s20), s21 = multiplyAdd(high, x, s21);
    x = v128.load32_splat(q, 12);
    s30 = multiplyAdd(low, x, s30), s31 = multiplyAdd(high, x, s31);
    if (w1 == 0) break;
    raw = v128.load(w1);
    low = weightsLow<T>(raw), high = weightsHigh<T>(raw, w1);
    x = v128.load32_splat(q, 16);
    s00 = multiplyAdd(low, x, s00), s01 = multiplyAdd(high, x, s01);
    x = v128.load32_splat(q, 20);
    s10 = multiplyAdd(low, x, s10), s11 = multiplyAdd(high, x, s11);
    x = v128.load32_splat(q, 24);
    s20 = multiplyAdd(low, x, s20), s21 = multiplyAdd(high, x, s21);
    x = v128.load32_splat(q, 28);
    s30 = multiplyAdd(low, x, s30), s31 = multiplyAdd(high, x, s31);
    if (w2 == 0) break;
    raw = v128.load(w2);
    low = weightsLow<T>(raw), high = weightsHigh<T>(raw, w2);
    x = v128.load32_splat(q, 32);
    s00 = multiplyAdd(low, x, s00), s01 = multiplyAdd(high, x, s01);
    x = v128.load32_splat(q, 36);
    s10 = multiplyAdd(low, x, s10), s11 = multiplyAdd(high, x, s11);
    x = v128.load32_splat(q, 40);
    s20 = multiplyAdd(low, x, s20), s21 = multiplyAdd(high, x, s21);
    x = v128.load32_splat(q, 44);
    s30 = multiplyAdd(low, x, s30), s31 = multiplyAdd(high, x, s31);
    if (w3 == 0) break;
    raw = v128.load(w3);
    low = weightsLow<T>(raw), high = weightsHigh<T>(raw, w3);
    x = v128.load32_splat(q, 48);
    s00 = multiplyAdd(low, x, s00), s01 = multiplyAdd(high, x, s01);
    x = v128.load32_splat(q, 52);
    s10 = multiplyAdd(low, x, s10), s11 = multiplyAdd(high, x, s11);
    x = v128.load32_splat(q, 56);
    s20 = multiplyAdd(low, x, s20), s21 = multiplyAdd(high, x, s21);
    x = v128.load32_splat(q, 60);
    s30 = multiplyAdd(low, x, s30), s31 = multiplyAdd(high, x, s31);
    q += 64;
    w += rowBytes, w1 += rowBytes, w2 += rowBytes, w3 += rowBytes;
  }
  let out = <usize>load<u32>(outs) + at;
  v128.store(out, s00), v128.store(out, s01, 16);
  out = <usize>load<u32>(outs, 4) + at;
  v128.store(out, s10), v128.store(out, s11, 16);
  out = <usize>load<u32>(outs, 8) + at;
  v128.store(out, s20), v128.store(out, s21, 16);
  out = <usize>load<u32>(outs, 12) + at;
  v128.store(out, s30), v128.store(out, s31, 16);
}
