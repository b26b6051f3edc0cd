// Products of rows with a panel of weight rows.
//
// A panel of n weight rows is worked on as t = ⌈n / 4⌉ tiles: tile i has the rows i, t + i, 2t + i and 3t + i. So each
// of the four is read from its first to its last byte while the tiles go by, which is what the processor's prefetch
// needs: four neighbouring rows at a time come from memory at half the speed (README.md of kernels/linear).
import {
  BLOCK, dotTile, dotTwoTiles, multiplyFourRows, multiplyPacked, multiplyTwoRows, packTile,
} from "./projection-tiles.as";
import { BF16, F16 } from "./weights.as";

/** Outputs of an item; projection.ts holds the same number. */
export const ITEM_OUTPUTS: i32 = 16;
/** Rows of x that `multiplyPanel` takes at most. */
export const PANEL_ROWS: i32 = 512;

/** Up to so many rows meet the weights as stored; for more, widening the weights once pays. */
const FEW_ROWS: i32 = 12;
/** Tiles packed at once: 128 KiB of f32. */
const GROUP: i32 = 8;
/** Rows that meet a packed tile before the next one's turn comes: 64 KiB of f32. */
const ROW_BLOCK: i32 = 16;

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

/** Bytes of a tile's sums: 16 a row, rows in fours since tiles of four rows write as many. */
// @ts-ignore: decorator
@inline
function sumBytes(rows: i32): usize {
  return <usize>((rows + 3) & ~3) << 4;
}

/** Address of a row of weights, the last one for those past it. */
// @ts-ignore: decorator
@inline
function weightRow(weight: usize, rowBytes: usize, row: i32, count: i32): usize {
  return weight + <usize>min(row, count - 1) * rowBytes;
}

/** Address of column `column` of a listed row, the last one for those past it. */
// @ts-ignore: decorator
@inline
function listedRow(scratch: usize, row: i32, rows: i32, column: i32): usize {
  return <usize>load<u32>(scratch + (<usize>min(row, rows - 1) << 2)) + (<usize>column << 2);
}

/** Few rows times a block of a tile's weights as stored; these stay in the first-level cache from row to row. */
function multiplyStored<T>(
  w0: usize, w1: usize, w2: usize, w3: usize, column: i32, columns: i32, rows: i32, sums: usize, scratch: usize,
): void {
  const isFirst = column == 0;
  for (let row = 0; row < rows; row += 4) {
    const x0 = listedRow(scratch, row, rows, column);
    const x1 = listedRow(scratch, row + 1, rows, column);
    const target = sums + (<usize>row << 4);
    if (row + 2 >= rows) {
      multiplyTwoRows<T>(x0, x1, w0, w1, w2, w3, columns, target, isFirst);
    } else {
      const x2 = listedRow(scratch, row + 2, rows, column);
      const x3 = listedRow(scratch, row + 3, rows, column);
      multiplyFourRows<T>(x0, x1, x2, x3, w0, w1, columns, target, isFirst);
      multiplyFourRows<T>(x0, x1, x2, x3, w2, w3, columns, target + 8, isFirst);
    }
  }
}

/** A panel by one row. Of wide rows, tiles i and ⌈t / 2⌉ + i go together: eight rows, each read from first to last. */
function multiplyOne<T>(weight: usize, rowBytes: usize, count: i32, columns: i32, scratch: usize): void {
  const x = <usize>load<u32>(scratch);
  const tiles = (count + 3) >> 2;
  const half = columns > BLOCK ? (tiles + 1) >> 1 : tiles;
  for (let tile = 0; tile < half; tile++) {
    const sums = scratch + SUMS + <usize>tile * sumBytes(1);
    const w0 = weightRow(weight, rowBytes, tile, count);
    const w1 = weightRow(weight, rowBytes, tile + tiles, count);
    const w2 = weightRow(weight, rowBytes, tile + 2 * tiles, count);
    const w3 = weightRow(weight, rowBytes, tile + 3 * tiles, count);
    // The partner's last row may lie past the panel; then this tile goes alone, and so does the partner.
    if (tile + half < tiles && tile + half + 3 * tiles < count) {
      const step = <usize>half * rowBytes;
      dotTwoTiles<T>(x, w0, w1, w2, w3, step, columns, sums, sums + <usize>half * sumBytes(1));
      continue;
    }
    v128.store(sums, dotTile<T>(x, w0, w1, w2, w3, columns));
    if (tile + half >= tiles) continue;
    const v0 = weightRow(weight, rowBytes, tile + half, count);
    const v1 = weightRow(weight, rowBytes, tile + half + tiles, count);
    const v2 = weightRow(weight, rowBytes, tile + half + 2 * tiles, count);
    const v3 = weightRow(weight, rowBytes, tile + half + 3 * tiles, count);
    v128.store(sums + <usize>half * sumBytes(1), dotTile<T>(x, v0, v1, v2, v3, columns));
  }
}

/** A panel by few rows, the weights as stored. */
function multiplyFew<T>(weight: usize, rowBytes: usize, count: i32, columns: i32, rows: i32, scratch: usize): void {
  const tiles = (count + 3) >> 2;
  let sums = scratch + SUMS;
  for (let tile = 0; tile < tiles; tile++) {
    const w0 = weightRow(weight, rowBytes, tile, count);
    const w1 = weightRow(weight, rowBytes, tile + tiles, count);
    const w2 = weightRow(weight, rowBytes, tile + 2 * tiles, count);
    const w3 = weightRow(weight, rowBytes, tile + 3 * tiles, count);
    for (let column = 0; column < columns; column += BLOCK) {
      const at = <usize>column * sizeof<T>();
      const width = min(BLOCK, columns - column);
      multiplyStored<T>(w0 + at, w1 + at, w2 + at, w3 + at, column, width, rows, sums, scratch);
    }
    sums += sumBytes(rows);
  }
}

/** Up to GROUP tiles of a panel by all rows: a block of the weights becomes f32, then meets the rows two by two. */
function multiplyGroup<T>(
  weight: usize, rowBytes: usize, count: i32, columns: i32, rows: i32, first: i32, scratch: usize,
): void {
  const tiles = (count + 3) >> 2;
  const last = min(first + GROUP, tiles);
  for (let column = 0; column < columns; column += BLOCK) {
    const width = min(BLOCK, columns - column);
    const block = weight + <usize>column * sizeof<T>();
    let packed = scratch + PACKED;
    for (let tile = first; tile < last; tile++) {
      const w0 = weightRow(block, rowBytes, tile, count);
      const w1 = weightRow(block, rowBytes, tile + tiles, count);
      const w2 = weightRow(block, rowBytes, tile + 2 * tiles, count);
      const w3 = weightRow(block, rowBytes, tile + 3 * tiles, count);
      packTile<T>(w0, w1, w2, w3, width, packed);
      packed += <usize>width << 4;
    }
    for (let begin = 0; begin < rows; begin += ROW_BLOCK) {
      const end = min(begin + ROW_BLOCK, rows);
      packed = scratch + PACKED;
      for (let tile = first; tile < last; tile++) {
        const sums = scratch + SUMS + <usize>tile * sumBytes(rows);
        for (let row = begin; row < end; row += 2) {
          const x0 = listedRow(scratch, row, rows, column);
          const x1 = listedRow(scratch, row + 1, rows, column);
          multiplyPacked(x0, x1, packed, width, sums + (<usize>row << 4), column == 0);
        }
        packed += <usize>width << 4;
      }
    }
  }
}

function multiplyAs<T>(weight: usize, rowBytes: usize, count: i32, columns: i32, rows: i32, scratch: usize): void {
  if (rows == 1) {
    multiplyOne<T>(weight, rowBytes, count, columns, scratch);
    return;
  }
  if (rows <= FEW_ROWS) {
    multiplyFew<T>(weight, rowBytes, count, columns, rows, scratch);
    return;
  }
  for (let tile = 0; tile < (count + 3) >> 2; tile += GROUP) {
    multiplyGroup<T>(weight, rowBytes, count, columns, rows, tile, scratch);
  }
}

/** Turns sums by tile into `out` [rows, 4 · tiles], four tiles at a time. */
function orderSums(sums: usize, tiles: i32, rows: i32, out: usize): void {
  const laneBytes = <usize>tiles << 2, step = sumBytes(rows);
  for (let row = 0; row < rows; row++) {
    let from = sums + (<usize>row << 4);
    let to = out + ((<usize>row * <usize>tiles) << 4);
    let tile = 0;
    for (; tile + 4 <= tiles; tile += 4, from += 4 * step, to += 16) {
      const a = v128.load(from), b = v128.load(from + step);
      const c = v128.load(from + 2 * step), d = v128.load(from + 3 * step);
      const ab = v128.shuffle<f32>(a, b, 0, 4, 1, 5), cd = v128.shuffle<f32>(c, d, 0, 4, 1, 5);
      v128.store(to, v128.shuffle<i64>(ab, cd, 0, 2));
      v128.store(to + laneBytes, v128.shuffle<i64>(ab, cd, 1, 3));
      const high = v128.shuffle<f32>(a, b, 2, 6, 3, 7), other = v128.shuffle<f32>(c, d, 2, 6, 3, 7);
      v128.store(to + 2 * laneBytes, v128.shuffle<i64>(high, other, 0, 2));
      v128.store(to + 3 * laneBytes, v128.shuffle<i64>(high, other, 1, 3));
    }
    for (; tile < tiles; tile++, from += step, to += 4) {
      const v = v128.load(from);
      v128.store_lane<f32>(to, v, 0);
      v128.store_lane<f32>(to + laneBytes, v, 1);
      v128.store_lane<f32>(to + 2 * laneBytes, v, 2);
      v128.store_lane<f32>(to + 3 * laneBytes, v, 3);
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
  if (dtype == BF16) multiplyAs<u16>(weight, rowBytes, count, columns, rows, scratch);
  else if (dtype == F16) multiplyAs<i16>(weight, rowBytes, count, columns, rows, scratch);
  else multiplyAs<f32>(weight, rowBytes, count, columns, rows, scratch);
  orderSums(scratch + SUMS, (count + 3) >> 2, rows, out);
}
