// Products with a head's rows of W_UK and W_UV, as stored: short rows that lie one after another in memory. While four rows
// are in work, one byte of every cache line of the next four is read in the order of memory, which a processor's
// prefetcher follows at full bandwidth; four rows at once it does not (the README of mla-epilogue has the numbers).
import { sumLanes4 } from "./gemm.as";
import { multiplyAdd } from "./simd.as";
import { BF16, F16, weightsHigh, weightsLow } from "./weights.as";

const LINE: usize = 64;

/** Reads a byte of each cache line of the 32 values of type T at `at`. */
// @ts-ignore: decorator
@inline
function touch<T>(at: usize): i32 {
  if (sizeof<T>() == 4) return load<u8>(at) | load<u8>(at, LINE);
  return load<u8>(at);
}

function dotFourAs<T>(x: usize, w: usize, rowBytes: usize, last: i32, columns: i32, next: usize, sink: usize): v128 {
  const w1 = <usize>min(1, last) * rowBytes, w2 = <usize>min(2, last) * rowBytes, w3 = <usize>min(3, last) * rowBytes;
  let a = f32x4.splat(0), b = a, c = a, d = a;
  let touched: i32 = 0;
  const end = x + (<usize>columns << 2);
  for (; x < end; x += 32, w += 8 * sizeof<T>(), next += 32 * sizeof<T>()) {
    touched |= touch<T>(next);
    const x0 = v128.load(x), x1 = v128.load(x, 16);
    const ra = v128.load(w), rb = v128.load(w + w1), rc = v128.load(w + w2), rd = v128.load(w + w3);
    a = multiplyAdd(x0, weightsLow<T>(ra), a);
    b = multiplyAdd(x0, weightsLow<T>(rb), b);
    c = multiplyAdd(x0, weightsLow<T>(rc), c);
    d = multiplyAdd(x0, weightsLow<T>(rd), d);
    a = multiplyAdd(x1, weightsHigh<T>(ra, w), a);
    b = multiplyAdd(x1, weightsHigh<T>(rb, w + w1), b);
    c = multiplyAdd(x1, weightsHigh<T>(rc, w + w2), c);
    d = multiplyAdd(x1, weightsHigh<T>(rd, w + w3), d);
  }
  store<i32>(sink, touched);
  return sumLanes4(a, b, c, d);
}

/**
 * x [columns] times the rows 0…`last` (at most 3; the last one repeated) of `w`; reads ahead four rows at `next`
 * (where there is nothing to read ahead, any memory of that size). `sink` is four bytes of scratch.
 */
export function dotFour(
  dtype: i32, x: usize, w: usize, rowBytes: usize, last: i32, columns: i32, next: usize, sink: usize,
): v128 {
  if (dtype == BF16) return dotFourAs<u16>(x, w, rowBytes, last, columns, next, sink);
  if (dtype == F16) return dotFourAs<i16>(x, w, rowBytes, last, columns, next, sink);
  return dotFourAs<f32>(x, w, rowBytes, last, columns, next, sink);
}

/**
 * out[c] += Σ q[j]·w[j][c] over four rows j of `w`, `columns` values each; reads ahead four rows at `next`, as
 * `dotFour` does.
 */
export function addFour<T>(q: usize, w: usize, columns: usize, out: usize, next: usize, sink: usize): void {
  const w1 = columns * sizeof<T>();
  const w2 = 2 * w1, w3 = 3 * w1;
  const qa = v128.load32_splat(q), qb = v128.load32_splat(q, 4), qc = v128.load32_splat(q, 8), qd = v128.load32_splat(q, 12);
  let touched: i32 = 0;
  const end = w + w1;
  for (; w < end; w += 8 * sizeof<T>(), out += 32, next += 32 * sizeof<T>()) {
    touched |= touch<T>(next);
    const a = v128.load(w), b = v128.load(w + w1), c = v128.load(w + w2), d = v128.load(w + w3);
    let low = multiplyAdd(weightsLow<T>(a), qa, v128.load(out));
    let high = multiplyAdd(weightsHigh<T>(a, w), qa, v128.load(out, 16));
    low = multiplyAdd(weightsLow<T>(b), qb, low);
    high = multiplyAdd(weightsHigh<T>(b, w + w1), qb, high);
    low = multiplyAdd(weightsLow<T>(c), qc, low);
    high = multiplyAdd(weightsHigh<T>(c, w + w2), qc, high);
    v128.store(out, multiplyAdd(weightsLow<T>(d), qd, low));
    v128.store(out, multiplyAdd(weightsHigh<T>(d, w + w3), qd, high), 16);
  }
  store<i32>(sink, touched);
}
