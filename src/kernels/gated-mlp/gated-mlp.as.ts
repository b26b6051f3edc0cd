import { dotRows4, dotTile2x4, packRows, rowBytesOf, storeLanes } from "../common/gemm.as";
import { siluLanes } from "../common/silu.as";
import { argInt, argPointer } from "../common/simd.as";

/** Outputs `first`…`last` of every row: gate and up tiles lie in turn in scratch. */
function gateUpPanel(args: usize, first: i32, last: i32, rows: i32, scratch: usize): void {
  const columns = argInt(args, 5);
  const gateBytes = rowBytesOf(argInt(args, 7), columns);
  const upBytes = rowBytesOf(argInt(args, 8), columns);
  const tileBytes = <usize>columns << 4;
  const packed = scratch + 64;
  let tile = packed;
  for (let column = first; column < last; column += 4) {
    const count = min(4, last - column);
    packRows(argInt(args, 7), argPointer(args, 1) + <usize>column * gateBytes, gateBytes, count, columns, tile);
    tile += tileBytes;
    packRows(argInt(args, 8), argPointer(args, 2) + <usize>column * upBytes, upBytes, count, columns, tile);
    tile += tileBytes;
  }
  const xStride = <usize>columns << 2;
  const outStride = <usize>argInt(args, 6) << 2;
  let x = argPointer(args, 0);
  let out = argPointer(args, 3);
  for (let row = 0; row < rows; row += 2) {
    const pair = row + 1 < rows;
    const x1 = pair ? x + xStride : x;
    tile = packed;
    for (let column = first; column < last; column += 4) {
      const count = min(4, last - column);
      dotTile2x4(x, x1, tile, columns, scratch);
      dotTile2x4(x, x1, tile + tileBytes, columns, scratch + 32);
      const target = out + (<usize>column << 2);
      const upper = f32x4.mul(siluLanes(v128.load(scratch)), v128.load(scratch, 32));
      storeLanes(target, upper, count);
      const lower = f32x4.mul(siluLanes(v128.load(scratch, 16)), v128.load(scratch, 48));
      if (pair) storeLanes(target + outStride, lower, count);
      tile += tileBytes << 1;
    }
    x += xStride << 1;
    out += outStride << 1;
  }
}

/**
 * silu(x · gateᵀ) · (x · upᵀ). Items are panels of outputs. Buffers: x, gate, up, out, rowCount; scalars: inputs,
 * outputs, gateDtype, upDtype, panelRows (a multiple of 4).
 */
export function gatedMlpGateUp(args: usize, begin: i32, end: i32, scratch: usize): void {
  const rows = load<i32>(argPointer(args, 4));
  const panelRows = argInt(args, 9);
  const last = min(end * panelRows, argInt(args, 6));
  if (rows > 1) {
    for (let first = begin * panelRows; first < last; first += panelRows) {
      gateUpPanel(args, first, min(first + panelRows, last), rows, scratch);
    }
    return;
  }
  if (rows < 1) return;
  const x = argPointer(args, 0);
  const columns = argInt(args, 5);
  const gateBytes = rowBytesOf(argInt(args, 7), columns);
  const upBytes = rowBytesOf(argInt(args, 8), columns);
  for (let column = begin * panelRows; column < last; column += 4) {
    const count = min(4, last - column);
    const gateRow = argPointer(args, 1) + <usize>column * gateBytes;
    const upRow = argPointer(args, 2) + <usize>column * upBytes;
    const gate = dotRows4(argInt(args, 7), x, gateRow, gateBytes, count, columns);
    const up = dotRows4(argInt(args, 8), x, upRow, upBytes, count, columns);
    storeLanes(argPointer(args, 3) + (<usize>column << 2), f32x4.mul(siluLanes(gate), up), count);
  }
}
