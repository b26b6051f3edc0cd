import { loadLanes, rowBytesOf, storeLanes } from "../common/gemm.as";
import {
  ITEM_OUTPUTS, listRows, multiplyPanel, PANEL_ROWS, panelOutputs, RESULT, resultStride,
} from "../common/projection.as";
import { argFloat, argInt, argPointer } from "../common/simd.as";

/** Stores or accumulates scale · (sums + bias) for `count` outputs from `column` on of the rows from `row` on. */
function finish(args: usize, sums: usize, row: i32, rows: i32, column: i32, count: i32): void {
  const outStride = <usize>argInt(args, 6) << 2;
  const scale = f32x4.splat(argFloat(args, 11));
  const bias = argInt(args, 10) != 0 ? argPointer(args, 2) + (<usize>column << 2) : 0;
  const accumulates = argInt(args, 9) != 0;
  let out = argPointer(args, 3) + <usize>row * outStride + (<usize>column << 2);
  for (let i = 0; i < rows; i++) {
    let j = 0;
    if (bias == 0) {
      for (; j + 4 <= count; j += 4) {
        const at = <usize>j << 2;
        const v = f32x4.mul(v128.load(sums + at), scale);
        v128.store(out + at, accumulates ? f32x4.add(v, v128.load(out + at)) : v);
      }
    }
    for (; j < count; j += 4) {
      const at = <usize>j << 2;
      let v = v128.load(sums + at);
      if (bias != 0) v = f32x4.add(v, loadLanes(bias + at, count - j));
      v = f32x4.mul(v, scale);
      if (accumulates) v = f32x4.add(v, loadLanes(out + at, count - j));
      storeLanes(out + at, v, count - j);
    }
    sums += resultStride(count);
    out += outStride;
  }
}

/**
 * Items are 16 outputs. Buffers: x, weight, bias, out, rowCount; scalars: inputs, outputs, xStride, dtype,
 * mode (1 accumulates), hasBias, scale.
 */
export function linear(args: usize, begin: i32, end: i32, scratch: usize): void {
  const total = load<i32>(argPointer(args, 4));
  const columns = argInt(args, 5);
  const dtype = argInt(args, 8);
  const rowBytes = rowBytesOf(dtype, columns);
  const xStride = <usize>argInt(args, 7) << 2;
  const last = min(end * ITEM_OUTPUTS, argInt(args, 6));
  for (let row = 0; row < total; row += PANEL_ROWS) {
    const rows = min(PANEL_ROWS, total - row);
    const outputs = panelOutputs(rows);
    listRows(scratch, argPointer(args, 0) + <usize>row * xStride, xStride, rows);
    for (let first = begin * ITEM_OUTPUTS; first < last; first += outputs) {
      const count = min(outputs, last - first);
      const weight = argPointer(args, 1) + <usize>first * rowBytes;
      multiplyPanel(dtype, weight, rowBytes, count, columns, rows, scratch, scratch + RESULT);
      finish(args, scratch + RESULT, row, rows, first, count);
    }
  }
}
