import type { Launch } from "../../device/device.ts";
import {
  enqueueHalfRounding,
  enqueueMatrixProduct,
  multipliesOnMatrixUnits,
} from "../common/projection.matrix.webgpu.ts";
import { checkBytes } from "../common/weight.ts";
import type { GatedMlpArguments } from "./gated-mlp.ts";

/**
 * All of `gatedMlp` on the matrix units with activations in f16, where `rounded` has room for them, the adapter has such
 * units and there are enough rows; says whether it was enqueued.
 */
export function enqueueHalfMlp(launch: Launch, args: GatedMlpArguments): boolean {
  const { x, gate, up, down, rounded, isRounded, maxRows, rowCount, mode, out, scale = 1 } = args;
  const weights = [gate, up, down];
  if (rounded === undefined || gate.dtype !== up.dtype) return false;
  if (!weights.every((weight) => multipliesOnMatrixUnits(launch.target, weight, maxRows))) return false;
  const { columns: hidden, rows: intermediate } = gate;
  // The second part of `rounded` is bound by itself.
  if ((2 * maxRows * hidden) % 256 !== 0) return false;
  checkBytes("rounded", rounded, 2 * maxRows * (hidden + intermediate));
  const narrow = rounded.slice(0, 2 * maxRows * hidden);
  const wide = rounded.slice(narrow.bytes, 2 * maxRows * intermediate);
  const rows = { rowCount, maxRows };
  if (!isRounded) {
    enqueueHalfRounding(launch, { x, out: narrow, width: hidden, stride: hidden, scale: 1, ...rows });
  }
  enqueueMatrixProduct(launch, {
    ...{ x: narrow, weight: gate, second: up, out: wide, mode: "store", scale },
    ...rows,
  });
  enqueueMatrixProduct(launch, { x: wide, weight: down, out, mode, ...rows });
  return true;
}
