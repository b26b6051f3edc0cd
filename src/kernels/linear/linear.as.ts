import { dotRows4, dotTile2x4, loadLanes, packRows, rowBytesOf, storeLanes } from "../common/gemm.as";
import { argFloat, argInt, argPointer } from "../common/simd.as";

/** Stores or accumulates scale · (sums + bias) for `count` outputs from `column` on. */
// @ts-ignore: decorator
@inline
function finish(args: usize, out: usize, column: i32, count: i32, sums: v128): void {
  const offset = <usize>column << 2;
  if (argInt(args, 11) != 0) sums = f32x4.add(sums, loadLanes(argPointer(args, 2) + offset, count));
  sums = f32x4.mul(sums, f32x4.splat(argFloat(args, 12)));
  if (argInt(args, 10) != 0) sums = f32x4.add(sums, loadLanes(out + offset, count));
  storeLanes(out + offset, sums, count);
}

/** Outputs `first`…`last` of every row: weights become packed f32 tiles once, then meet the rows two by two. */
function linearPanel(args: usize, first: i32, last: i32, rows: i32, scratch: usize): void {
  const columns = argInt(args, 5);
  const dtype = argInt(args, 8);
  const rowBytes = rowBytesOf(dtype, columns);
  const weight = argPointer(args, 1);
  const tileBytes = <usize>columns << 4;
  const packed = scratch + 32;
  for (let column = first; column < last; column += 4) {
    const tile = packed + <usize>((column - first) >> 2) * tileBytes;
    packRows(dtype, weight + <usize>column * rowBytes, rowBytes, min(4, last - column), columns, tile);
  }
  const xStride = <usize>argInt(args, 7) << 2;
  const outStride = <usize>argInt(args, 6) << 2;
  let x = argPointer(args, 0);
  let out = argPointer(args, 3);
  for (let row = 0; row < rows; row += 2) {
    const pair = row + 1 < rows;
    let tile = packed;
    for (let column = first; column < last; column += 4) {
      const count = min(4, last - column);
      dotTile2x4(x, pair ? x + xStride : x, tile, columns, scratch);
      finish(args, out, column, count, v128.load(scratch));
      if (pair) finish(args, out + outStride, column, count, v128.load(scratch, 16));
      tile += tileBytes;
    }
    x += xStride << 1;
    out += outStride << 1;
  }
}

/**
 * Items are panels of outputs. Buffers: x, weight, bias, out, rowCount; scalars: inputs, outputs, xStride, dtype,
 * panelRows (a multiple of 4), mode (1 accumulates), hasBias, scale.
 */
export function linear(args: usize, begin: i32, end: i32, scratch: usize): void {
  const rows = load<i32>(argPointer(args, 4));
  const outputs = argInt(args, 6);
  const panelRows = argInt(args, 9);
  const last = min(end * panelRows, outputs);
  if (rows > 1) {
    for (let first = begin * panelRows; first < last; first += panelRows) {
      linearPanel(args, first, min(first + panelRows, last), rows, scratch);
    }
    return;
  }
  if (rows < 1) return;
  const columns = argInt(args, 5);
  const dtype = argInt(args, 8);
  const rowBytes = rowBytesOf(dtype, columns);
  const weight = argPointer(args, 1);
  for (let column = begin * panelRows; column < last; column += 4) {
    const count = min(4, last - column);
    const source = weight + <usize>column * rowBytes;
    finish(args, argPointer(args, 3), column, count, dotRows4(dtype, argPointer(args, 0), source, rowBytes, count, columns));
  }
}
