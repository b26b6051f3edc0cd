import { rowBytesOf, storeLanes } from "../common/gemm.as";
import {
  ITEM_OUTPUTS, listRows, multiplyPanel, PANEL_ROWS, panelOutputs, RESULT, resultStride, SECOND_RESULT,
} from "../common/projection.as";
import { siluLanes } from "../common/silu.as";
import { argInt, argPointer } from "../common/simd.as";

/** Outputs from `first` on of the listed rows: gate and up side by side in scratch, their product in `out`. */
function gateUpPanel(args: usize, first: i32, count: i32, rows: i32, out: usize, scratch: usize): void {
  const columns = argInt(args, 5);
  const gateBytes = rowBytesOf(argInt(args, 7), columns);
  const upBytes = rowBytesOf(argInt(args, 8), columns);
  let gate = scratch + RESULT;
  let up = scratch + SECOND_RESULT;
  const gateRows = argPointer(args, 1) + <usize>first * gateBytes;
  const upRows = argPointer(args, 2) + <usize>first * upBytes;
  multiplyPanel(argInt(args, 7), gateRows, gateBytes, count, columns, rows, scratch, gate);
  multiplyPanel(argInt(args, 8), upRows, upBytes, count, columns, rows, scratch, up);
  for (let row = 0; row < rows; row++) {
    let at: usize = 0;
    for (; at + 16 <= <usize>count << 2; at += 16) {
      v128.store(out + at, f32x4.mul(siluLanes(v128.load(gate + at)), v128.load(up + at)));
    }
    const left = count - <i32>(at >> 2);
    if (left > 0) storeLanes(out + at, f32x4.mul(siluLanes(v128.load(gate + at)), v128.load(up + at)), left);
    gate += resultStride(count);
    up += resultStride(count);
    out += <usize>argInt(args, 6) << 2;
  }
}

/**
 * silu(x · gateᵀ) · (x · upᵀ). Items are 16 outputs. Buffers: x, gate, up, out, rowCount; scalars: inputs, outputs,
 * gateDtype, upDtype.
 */
export function gatedMlpGateUp(args: usize, begin: i32, end: i32, scratch: usize): void {
  const total = load<i32>(argPointer(args, 4));
  const xStride = <usize>argInt(args, 5) << 2;
  const outStride = <usize>argInt(args, 6) << 2;
  const last = min(end * ITEM_OUTPUTS, argInt(args, 6));
  for (let row = 0; row < total; row += PANEL_ROWS) {
    const rows = min(PANEL_ROWS, total - row);
    const outputs = panelOutputs(rows);
    const out = argPointer(args, 3) + <usize>row * outStride;
    listRows(scratch, argPointer(args, 0) + <usize>row * xStride, xStride, rows);
    for (let first = begin * ITEM_OUTPUTS; first < last; first += outputs) {
      gateUpPanel(args, first, min(outputs, last - first), rows, out + (<usize>first << 2), scratch);
    }
  }
}
