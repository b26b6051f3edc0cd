// One query row against stored keys and values as they lie in memory: what reads each of them once has no use for a tile
// in float32. A type parameter names the stored form as in weights.as.ts.
import { f16ToF32 } from "./latent.as";
import { bf16High, bf16Low, multiplyAdd } from "./simd.as";
import { KEYS, PAGE_SIZE, DTYPE, VALUES, WIDTH, rowAddress, rowSize } from "./attention-record.as";
import { argInt, argPointer } from "./simd.as";
import { sumLanes4 } from "./attention-tile.as";

/** The first four of the eight values at `source`, whose first 16 bytes are `raw`. */
// @ts-ignore: decorator
@inline
function low<T>(raw: v128): v128 {
  if (isFloat<T>()) return raw;
  if (isSigned<T>()) return f16ToF32(i32x4.extend_low_i16x8_u(raw));
  return bf16Low(raw);
}

/** The other four. */
// @ts-ignore: decorator
@inline
function high<T>(raw: v128, source: usize): v128 {
  if (isFloat<T>()) return v128.load(source, 16);
  if (isSigned<T>()) return f16ToF32(i32x4.extend_high_i16x8_u(raw));
  return bf16High(raw);
}

/** One line of memory, or as many as eight values of four rows take. */
// @ts-ignore: decorator
@inline
function touch<T>(at: usize): i32 {
  if (sizeof<T>() == 4) return load<u8>(at) | load<u8>(at, 64);
  return load<u8>(at);
}

/**
 * Products of q with rows a, b, c, d. Four rows at once are no stream that the processor sees coming, so the next four, at
 * `next`, are touched in the order of memory meanwhile; `sink` takes what that read.
 */
function dotFour<T>(q: usize, width: i32, a: usize, b: usize, c: usize, d: usize, next: usize, sink: usize): v128 {
  let touched: i32 = 0;
  let a0 = f32x4.splat(0), a1 = a0, b0 = a0, b1 = a0, c0 = a0, c1 = a0, d0 = a0, d1 = a0;
  const end = q + (<usize>width << 2);
  for (; q < end; q += 32, next += 32 * sizeof<T>()) {
    touched |= touch<T>(next);
    const x = v128.load(q);
    const y = v128.load(q, 16);
    let raw = v128.load(a);
    a0 = multiplyAdd(low<T>(raw), x, a0);
    a1 = multiplyAdd(high<T>(raw, a), y, a1);
    raw = v128.load(b);
    b0 = multiplyAdd(low<T>(raw), x, b0);
    b1 = multiplyAdd(high<T>(raw, b), y, b1);
    raw = v128.load(c);
    c0 = multiplyAdd(low<T>(raw), x, c0);
    c1 = multiplyAdd(high<T>(raw, c), y, c1);
    raw = v128.load(d);
    d0 = multiplyAdd(low<T>(raw), x, d0);
    d1 = multiplyAdd(high<T>(raw, d), y, d1);
    a += 8 * sizeof<T>();
    b += 8 * sizeof<T>();
    c += 8 * sizeof<T>();
    d += 8 * sizeof<T>();
  }
  store<i32>(sink, touched);
  return sumLanes4(f32x4.add(a0, a1), f32x4.add(b0, b1), f32x4.add(c0, c1), f32x4.add(d0, d1));
}

/**
 * Scores of `count` rows that lie `rowBytes` apart, stored in fours: up to three values past the last are not meant. `scores`
 * is in scratch, with 128 bytes to spare.
 */
function scoreRows<T>(q: usize, width: i32, rows: usize, rowBytes: usize, count: i32, scores: usize): void {
  const sink = scores + (<usize>count << 2) + 64;
  for (let t = 0; t < count; t += 4) {
    const a = rows + <usize>t * rowBytes;
    const left = count - t;
    const b = left > 1 ? a + rowBytes : a;
    const c = left > 2 ? b + rowBytes : a;
    const d = left > 3 ? c + rowBytes : a;
    // The last rows touch scratch: what follows them may be no memory.
    const next = left >= 8 ? a + 4 * rowBytes : q;
    v128.store(scores + (<usize>t << 2), dotFour<T>(q, width, a, b, c, d, next, sink));
  }
}

/** out += Σ p·row over eight rows of `width` values that lie `rowBytes` apart, p at `p`; touches the next eight at `next`. */
function addEight<T>(p: usize, width: i32, a: usize, rowBytes: usize, out: usize, next: usize, sink: usize): void {
  let touched: i32 = 0;
  const p0 = v128.load32_splat(p), p1 = v128.load32_splat(p, 4);
  const p2 = v128.load32_splat(p, 8), p3 = v128.load32_splat(p, 12);
  const p4 = v128.load32_splat(p, 16), p5 = v128.load32_splat(p, 20);
  const p6 = v128.load32_splat(p, 24), p7 = v128.load32_splat(p, 28);
  const end = out + (<usize>width << 2);
  for (; out < end; out += 32, a += 8 * sizeof<T>(), next += 64 * sizeof<T>()) {
    touched |= touch<T>(next) | touch<T>(next + 32 * sizeof<T>());
    let raw = v128.load(a);
    let x = multiplyAdd(low<T>(raw), p0, v128.load(out));
    let y = multiplyAdd(high<T>(raw, a), p0, v128.load(out, 16));
    let row = a + rowBytes;
    raw = v128.load(row);
    x = multiplyAdd(low<T>(raw), p1, x);
    y = multiplyAdd(high<T>(raw, row), p1, y);
    row += rowBytes;
    raw = v128.load(row);
    x = multiplyAdd(low<T>(raw), p2, x);
    y = multiplyAdd(high<T>(raw, row), p2, y);
    row += rowBytes;
    raw = v128.load(row);
    x = multiplyAdd(low<T>(raw), p3, x);
    y = multiplyAdd(high<T>(raw, row), p3, y);
    row += rowBytes;
    raw = v128.load(row);
    x = multiplyAdd(low<T>(raw), p4, x);
    y = multiplyAdd(high<T>(raw, row), p4, y);
    row += rowBytes;
    raw = v128.load(row);
    x = multiplyAdd(low<T>(raw), p5, x);
    y = multiplyAdd(high<T>(raw, row), p5, y);
    row += rowBytes;
    raw = v128.load(row);
    x = multiplyAdd(low<T>(raw), p6, x);
    y = multiplyAdd(high<T>(raw, row), p6, y);
    row += rowBytes;
    raw = v128.load(row);
    v128.store(out, multiplyAdd(low<T>(raw), p7, x));
    v128.store(out, multiplyAdd(high<T>(raw, row), p7, y), 16);
  }
  store<i32>(sink, touched);
}

function addOne<T>(p: usize, width: i32, a: usize, out: usize): void {
  const p0 = v128.load32_splat(p);
  const end = out + (<usize>width << 2);
  for (; out < end; out += 32, a += 8 * sizeof<T>()) {
    const raw = v128.load(a);
    v128.store(out, multiplyAdd(low<T>(raw), p0, v128.load(out)));
    v128.store(out, multiplyAdd(high<T>(raw, a), p0, v128.load(out, 16)), 16);
  }
}

function addRows<T>(p: usize, width: i32, rows: usize, rowBytes: usize, count: i32, out: usize, sink: usize): void {
  let t = 0;
  for (; t + 8 <= count; t += 8) {
    const a = rows + <usize>t * rowBytes;
    // The last rows touch themselves: what follows them may be no memory.
    const next = t + 16 <= count ? a + 8 * rowBytes : a;
    addEight<T>(p + (<usize>t << 2), width, a, rowBytes, out, next, sink);
  }
  for (; t < count; t++) addOne<T>(p + (<usize>t << 2), width, rows + <usize>t * rowBytes, out);
}

/**
 * Scores of a query row `q`, already scaled, against the keys of positions `from`…`to` of one head; up to three values
 * past the last are not meant.
 */
export function scoreRow(args: usize, q: usize, sequence: i32, head: i32, from: i32, to: i32, scores: usize): void {
  const pageSize = argInt(args, PAGE_SIZE), dtype = argInt(args, DTYPE), width = argInt(args, WIDTH);
  const rowBytes = rowSize(args);
  for (let t = from; t < to; ) {
    const count = min(to - t, pageSize - (t % pageSize));
    const rows = rowAddress(args, argPointer(args, KEYS), sequence, t, head);
    if (dtype == 2) scoreRows<u16>(q, width, rows, rowBytes, count, scores);
    else if (dtype == 1) scoreRows<i16>(q, width, rows, rowBytes, count, scores);
    else scoreRows<f32>(q, width, rows, rowBytes, count, scores);
    t += count;
    scores += <usize>count << 2;
  }
}

/** out += Σ p·v over the values of positions `from`…`to` of one head. `sink` is four bytes of scratch. */
export function addRow(args: usize, p: usize, sequence: i32, head: i32, from: i32, to: i32, out: usize, sink: usize): void {
  const pageSize = argInt(args, PAGE_SIZE), dtype = argInt(args, DTYPE), width = argInt(args, WIDTH);
  const rowBytes = rowSize(args);
  for (let t = from; t < to; ) {
    const count = min(to - t, pageSize - (t % pageSize));
    const rows = rowAddress(args, argPointer(args, VALUES), sequence, t, head);
    if (dtype == 2) addRows<u16>(p, width, rows, rowBytes, count, out, sink);
    else if (dtype == 1) addRows<i16>(p, width, rows, rowBytes, count, out, sink);
    else addRows<f32>(p, width, rows, rowBytes, count, out, sink);
    t += count;
    p += <usize>count << 2;
  }
}
