// Products of rows with a panel of weight rows. Every dot product is summed in one order: blocks of 1,024 columns, in
// each four lanes over k and then (0 + 2) + (1 + 3), the sums of the blocks one after the other. So a value's bits
// depend neither on the rows beside it, nor on the panel it falls in, nor on the threads.
//
// A panel of n weight rows is worked on as t = ⌈n / 4⌉ tiles: tile i has the rows i, t + i, 2t + i and 3t + i. So each
// of the four is read from its first to its last byte while the tiles go by, which is what the processor's prefetch
// needs: four neighbouring rows at a time come from memory at half the speed (README.md of kernels/linear).
import { sumLanes4 } from "./gemm.as";
import { multiplyAdd } from "./simd.as";
import { BF16, F16, weightSize, weightsHigh, weightsLow } from "./weights.as";

/** Outputs of an item; projection.ts holds the same number. */
export const ITEM_OUTPUTS: i32 = 16;
/** Rows of x that `multiplyPanel` takes at most. */
export const PANEL_ROWS: i32 = 512;

/** Columns whose sums are kept in registers: four weight rows of them are half a first-level cache as f32. */
const BLOCK: i32 = 1024;
/** Tiles packed at once where rows are many: half a second-level cache. */
const GROUP: i32 = 8;
/** Rows that meet a packed tile before the next one's turn comes; up to so many rows count as few. */
const FEW_ROWS: i32 = 16;

// Scratch: u32 [PANEL_ROWS] addresses of rows, packed tiles, the sums by tile, then room for the caller.
const PACKED: usize = <usize>PANEL_ROWS << 2;
const SUMS: usize = PACKED + (<usize>(GROUP * BLOCK) << 4);
/** Where in scratch the caller may keep two results of `multiplyPanel`. */
export const RESULT: usize = SUMS + 0x10000;
export const SECOND_RESULT: usize = RESULT + 0x10000;

/** Outputs of a panel for `rows` rows: as many as the 64 KiB of a result hold, or as are packed at once. */
export function panelOutputs(rows: i32): i32 {
  if (rows == 1) return 2048;
  return rows <= FEW_ROWS ? 512 : 4 * GROUP;
}

/** Names the rows of x: `rows` of them from `x` on, `stride` bytes apart. */
export function listRows(scratch: usize, x: usize, stride: usize, rows: i32): void {
  for (let row: usize = 0; row < <usize>rows; row++) store<u32>(scratch + (row << 2), <u32>(x + row * stride));
}

/** Bytes from one row of a result to the next. */
// @ts-ignore: decorator
@inline
export function resultStride(count: i32): usize {
  return <usize>((count + 3) & ~3) << 2;
}

// @ts-ignore: decorator
@inline
function weightRow(weight: usize, rowBytes: usize, row: i32, count: i32): usize {
  return weight + <usize>min(row, count - 1) * rowBytes;
}

/** `columns` values of four weight rows as f32 at `target`: four of each row in turn. */
function packTileAs<T>(w0: usize, w1: usize, w2: usize, w3: usize, columns: i32, target: usize): void {
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

function packTile(
  dtype: i32, weight: usize, rowBytes: usize, count: i32, tile: i32, column: i32, columns: i32, target: usize,
): void {
  const tiles = (count + 3) >> 2;
  const start = weight + <usize>column * weightSize(dtype);
  const w0 = weightRow(start, rowBytes, tile, count);
  const w1 = weightRow(start, rowBytes, tile + tiles, count);
  const w2 = weightRow(start, rowBytes, tile + 2 * tiles, count);
  const w3 = weightRow(start, rowBytes, tile + 3 * tiles, count);
  if (dtype == BF16) packTileAs<u16>(w0, w1, w2, w3, columns, target);
  else if (dtype == F16) packTileAs<i16>(w0, w1, w2, w3, columns, target);
  else packTileAs<f32>(w0, w1, w2, w3, columns, target);
}

/**
 * Two rows of x times a packed tile: sums [2, 4], stored or added. Eight sums and six loads are all that the registers
 * hold: V8 moves loads to the front of a loop, so a larger or unrolled tile spills and runs at half the speed.
 */
function multiplyTile(x0: usize, x1: usize, packed: usize, columns: i32, sums: usize, isFirst: bool): void {
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
  let first = sumLanes4(s00, s01, s02, s03);
  let second = sumLanes4(s10, s11, s12, s13);
  if (!isFirst) {
    first = f32x4.add(v128.load(sums), first);
    second = f32x4.add(v128.load(sums, 16), second);
  }
  v128.store(sums, first);
  v128.store(sums, second, 16);
}

/** Tiles `tile`…`lastTile` of a panel by all rows: weights become f32 once, then meet the rows two by two. */
function multiplyTiles(
  dtype: i32, weight: usize, rowBytes: usize, count: i32, columns: i32, rows: i32, tile: i32, lastTile: i32, scratch: usize,
): void {
  const sumRows = <usize>(rows + 1) & ~1;
  for (let column = 0; column < columns; column += BLOCK) {
    const width = min(BLOCK, columns - column);
    const tileBytes = <usize>width << 4;
    for (let t = tile; t < lastTile; t++) {
      packTile(dtype, weight, rowBytes, count, t, column, width, scratch + PACKED + <usize>(t - tile) * tileBytes);
    }
    for (let begin = 0; begin < rows; begin += FEW_ROWS) {
      const end = min(begin + FEW_ROWS, rows);
      for (let t = tile; t < lastTile; t++) {
        const packed = scratch + PACKED + <usize>(t - tile) * tileBytes;
        const sums = scratch + SUMS + ((<usize>t * sumRows) << 4);
        for (let row = begin; row < end; row += 2) {
          const x0 = load<u32>(scratch + (<usize>row << 2)) + (column << 2);
          const x1 = load<u32>(scratch + (<usize>min(row + 1, rows - 1) << 2)) + (column << 2);
          multiplyTile(x0, x1, packed, width, sums + (<usize>row << 4), column == 0);
        }
      }
    }
  }
}

/** One row x times a panel, the weights as stored: sums by tile. */
function dotPanelAs<T>(x: usize, weight: usize, rowBytes: usize, count: i32, columns: i32, sums: usize): void {
  const tiles = (count + 3) >> 2;
  const last = x + (<usize>columns << 2);
  for (let tile = 0; tile < tiles; tile++) {
    let w0 = weightRow(weight, rowBytes, tile, count);
    let w1 = weightRow(weight, rowBytes, tile + tiles, count);
    let w2 = weightRow(weight, rowBytes, tile + 2 * tiles, count);
    let w3 = weightRow(weight, rowBytes, tile + 3 * tiles, count);
    let at = x;
    let total = f32x4.splat(0);
    while (at < last) {
      const end = min(at + (<usize>BLOCK << 2), last);
      let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0;
      const isFirst = at == x;
      while (at < end) {
        const low = v128.load(at);
        const high = v128.load(at, 16);
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
        at += 32;
      }
      const sum = sumLanes4(s0, s1, s2, s3);
      total = isFirst ? sum : f32x4.add(total, sum);
    }
    v128.store(sums + (<usize>tile << 5), total);
  }
}

/** Turns sums by tile [tiles, sumRows, 4] into `out` [rows, 4 · tiles]. */
function orderSums(sums: usize, tiles: i32, rows: i32, out: usize): void {
  const tileBytes = <usize>((rows + 1) & ~1) << 4;
  const laneBytes = <usize>tiles << 2;
  for (let row = 0; row < rows; row++) {
    let from = sums + (<usize>row << 4);
    let to = out + ((<usize>row * <usize>tiles) << 4);
    for (let tile = 0; tile < tiles; tile++) {
      const v = v128.load(from);
      v128.store_lane<f32>(to, v, 0);
      v128.store_lane<f32>(to + laneBytes, v, 1);
      v128.store_lane<f32>(to + 2 * laneBytes, v, 2);
      v128.store_lane<f32>(to + 3 * laneBytes, v, 3);
      from += tileBytes;
      to += 4;
    }
  }
}

/**
 * The listed `rows` rows (f32, `columns` values each) times `count` weight rows (at most `panelOutputs(rows)`) from
 * `weight` on: sums at `out`, f32 [rows, count rounded up to a multiple of 4], the values past `count` meaningless.
 */
export function multiplyPanel(
  dtype: i32, weight: usize, rowBytes: usize, count: i32, columns: i32, rows: i32, scratch: usize, out: usize,
): void {
  const tiles = (count + 3) >> 2;
  const sums = scratch + SUMS;
  if (rows == 1) {
    const x = load<u32>(scratch);
    if (dtype == BF16) dotPanelAs<u16>(x, weight, rowBytes, count, columns, sums);
    else if (dtype == F16) dotPanelAs<i16>(x, weight, rowBytes, count, columns, sums);
    else dotPanelAs<f32>(x, weight, rowBytes, count, columns, sums);
  } else {
    const group = rows <= FEW_ROWS ? 1 : GROUP;
    for (let tile = 0; tile < tiles; tile += group) {
      multiplyTiles(dtype, weight, rowBytes, count, columns, rows, tile, min(tile + group, tiles), scratch);
    }
  }
  orderSums(sums, tiles, rows, out);
}
