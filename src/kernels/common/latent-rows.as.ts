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
