// One query row against stored keys and values as they lie in memory: what reads each of them once has no use for a tile
// in float32. A type parameter names the stored form as in weights.as.ts.
//
// Rows come as four streams that lie far apart: four pages beside each other where a run has them, else four quarters of a
// page. Neighbouring rows, or one page after another, reach 55 % of that (README.md of attention-decode).
import { f16ToF32 } from "./latent.as";
import { bf16High, bf16Low, multiplyAdd } from "./simd.as";
import { DTYPE, KEYS, PAGE_SIZE, rowAddress, VALUES, WIDTH } from "./attention-record.as";
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

/** Products of q with rows a, b, c, d. */
function dotFour<T>(q: usize, width: i32, a: usize, b: usize, c: usize, d: usize): v128 {
  let a0 = f32x4.splat(0), a1 = a0, b0 = a0, b1 = a0, c0 = a0, c1 = a0, d0 = a0, d1 = a0;
  const end = q + (<usize>width << 2);
  for (; q < end; q += 32) {
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
  return sumLanes4(f32x4.add(a0, a1), f32x4.add(b0, b1), f32x4.add(c0, c1), f32x4.add(d0, d1));
}

/** Scores of four streams of `count` rows; those of a stream lie `apart` floats after those of the one before. */
function scoreStreams<T>(
  q: usize, width: i32, a: usize, b: usize, c: usize, d: usize, rowBytes: usize, count: i32, scores: usize, apart: i32,
): void {
  const step = <usize>apart << 2;
  for (const end = scores + (<usize>count << 2); scores < end; scores += 4) {
    const products = dotFour<T>(q, width, a, b, c, d);
    v128.store32_lane(scores, products, 0);
    v128.store32_lane(scores + step, products, 1);
    v128.store32_lane(scores + 2 * step, products, 2);
    v128.store32_lane(scores + 3 * step, products, 3);
    a += rowBytes, b += rowBytes, c += rowBytes, d += rowBytes;
  }
}

/** Scores of `count` rows of one page, quarter beside quarter. */
function scorePage<T>(q: usize, width: i32, rows: usize, rowBytes: usize, count: i32, scores: usize): void {
  const quarter = count >> 2, step = <usize>quarter * rowBytes;
  scoreStreams<T>(q, width, rows, rows + step, rows + 2 * step, rows + 3 * step, rowBytes, quarter, scores, quarter);
  for (let t = 4 * quarter; t < count; t++) {
    const row = rows + <usize>t * rowBytes;
    v128.store32_lane(scores + (<usize>t << 2), dotFour<T>(q, width, row, row, row, row), 0);
  }
}

/** out += Σ p·row over rows a, b, c, d. */
// @ts-ignore: decorator
@inline
function addFour<T>(width: i32, p0: v128, p1: v128, p2: v128, p3: v128, a: usize, b: usize, c: usize, d: usize, out: usize): void {
  for (const end = out + (<usize>width << 2); out < end; out += 32) {
    const r0 = v128.load(a), r1 = v128.load(b), r2 = v128.load(c), r3 = v128.load(d);
    let x = multiplyAdd(low<T>(r0), p0, v128.load(out));
    let y = multiplyAdd(high<T>(r0, a), p0, v128.load(out, 16));
    x = multiplyAdd(low<T>(r1), p1, x);
    y = multiplyAdd(high<T>(r1, b), p1, y);
    x = multiplyAdd(low<T>(r2), p2, x);
    y = multiplyAdd(high<T>(r2, c), p2, y);
    v128.store(out, multiplyAdd(low<T>(r3), p3, x));
    v128.store(out, multiplyAdd(high<T>(r3, d), p3, y), 16);
    a += 8 * sizeof<T>();
    b += 8 * sizeof<T>();
    c += 8 * sizeof<T>();
    d += 8 * sizeof<T>();
  }
}

/** Adds four streams of `count` rows; the p of a stream lie `apart` floats after those of the one before. */
function addStreams<T>(
  p: usize, apart: i32, width: i32, a: usize, b: usize, c: usize, d: usize, rowBytes: usize, count: i32, out: usize,
): void {
  const step = <usize>apart << 2;
  for (const end = p + (<usize>count << 2); p < end; p += 4) {
    const p0 = v128.load32_splat(p), p1 = v128.load32_splat(p + step);
    const p2 = v128.load32_splat(p + 2 * step), p3 = v128.load32_splat(p + 3 * step);
    addFour<T>(width, p0, p1, p2, p3, a, b, c, d, out);
    a += rowBytes, b += rowBytes, c += rowBytes, d += rowBytes;
  }
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

/** Adds `count` rows of one page, quarter beside quarter. */
function addPage<T>(p: usize, width: i32, rows: usize, rowBytes: usize, count: i32, out: usize): void {
  const quarter = count >> 2, step = <usize>quarter * rowBytes;
  addStreams<T>(p, quarter, width, rows, rows + step, rows + 2 * step, rows + 3 * step, rowBytes, quarter, out);
  for (let t = 4 * quarter; t < count; t++) addOne<T>(p + (<usize>t << 2), width, rows + <usize>t * rowBytes, out);
}

function scoreAs<T>(args: usize, q: usize, sequence: i32, head: i32, from: i32, to: i32, scores: usize): void {
  const pageSize = argInt(args, PAGE_SIZE), width = argInt(args, WIDTH), pool = argPointer(args, KEYS);
  const rowBytes = <usize>width * sizeof<T>();
  for (let t = from, count = 0; t < to; t += count, scores += <usize>count << 2) {
    const a = rowAddress(args, pool, sequence, t, head);
    if (t % pageSize == 0 && to - t >= 4 * pageSize) {
      const b = rowAddress(args, pool, sequence, t + pageSize, head);
      const c = rowAddress(args, pool, sequence, t + 2 * pageSize, head);
      const d = rowAddress(args, pool, sequence, t + 3 * pageSize, head);
      scoreStreams<T>(q, width, a, b, c, d, rowBytes, pageSize, scores, pageSize);
      count = 4 * pageSize;
    } else {
      count = min(to - t, pageSize - (t % pageSize));
      scorePage<T>(q, width, a, rowBytes, count, scores);
    }
  }
}

function addAs<T>(args: usize, p: usize, sequence: i32, head: i32, from: i32, to: i32, out: usize): void {
  const pageSize = argInt(args, PAGE_SIZE), width = argInt(args, WIDTH), pool = argPointer(args, VALUES);
  const rowBytes = <usize>width * sizeof<T>();
  for (let t = from, count = 0; t < to; t += count, p += <usize>count << 2) {
    const a = rowAddress(args, pool, sequence, t, head);
    if (t % pageSize == 0 && to - t >= 4 * pageSize) {
      const b = rowAddress(args, pool, sequence, t + pageSize, head);
      const c = rowAddress(args, pool, sequence, t + 2 * pageSize, head);
      const d = rowAddress(args, pool, sequence, t + 3 * pageSize, head);
      addStreams<T>(p, pageSize, width, a, b, c, d, rowBytes, pageSize, out);
      count = 4 * pageSize;
    } else {
      count = min(to - t, pageSize - (t % pageSize));
      addPage<T>(p, width, a, rowBytes, count, out);
    }
  }
}

/** Scores of a query row `q`, already scaled, against the keys of positions `from`…`to` of one head. */
export function scoreRow(args: usize, q: usize, sequence: i32, head: i32, from: i32, to: i32, scores: usize): void {
  const dtype = argInt(args, DTYPE);
  if (dtype == 2) scoreAs<u16>(args, q, sequence, head, from, to, scores);
  else if (dtype == 1) scoreAs<i16>(args, q, sequence, head, from, to, scores);
  else scoreAs<f32>(args, q, sequence, head, from, to, scores);
}

/** out += Σ p·v over the values of positions `from`…`to` of one head. */
export function addRow(args: usize, p: usize, sequence: i32, head: i32, from: i32, to: i32, out: usize): void {
  const dtype = argInt(args, DTYPE);
  if (dtype == 2) addAs<u16>(args, p, sequence, head, from, to, out);
  else if (dtype == 1) addAs<i16>(args, p, sequence, head, from, to, out);
  else addAs<f32>(args, p, sequence, head, from, to, out);
}
