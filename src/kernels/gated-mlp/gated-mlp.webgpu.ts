import type { KernelSource, Launch } from "../../device/device.ts";
import {
  enqueueHalfRounding,
  enqueueMatrixProduct,
  multipliesOnMatrixUnits,
} from "../common/projection.matrix.webgpu.ts";
import { checkBytes } from "../common/weight.ts";
import combine from "./gated-mlp.combine.wgsl.ts";
import { roundedMlpBytes } from "./gated-mlp.cuda.ts";
import type { GatedMlpArguments } from "./gated-mlp.ts";

const combineKernel: KernelSource = {
  name: "gated-mlp.combine",
  buffers: ["gate", "up", "rowCount"],
  scalars: [["eighths", "i32"]],
  webgpu: { code: combine },
};

/**
 * All of `gatedMlp` on the matrix units with activations in f16, where `rounded` has room for them, the adapter has such
 * units and there are enough rows; says whether it was enqueued.
 */
export function enqueueHalfMlp(launch: Launch, args: GatedMlpArguments): boolean {
  const { x, gate, up, down, rounded, maxRows, rowCount, mode, scale = 1 } = args;
  const weights = [gate, up, down];
  if (rounded === undefined) return false;
  if (!weights.every((weight) => multipliesOnMatrixUnits(launch.target, weight, maxRows))) return false;
  const { columns: hidden, rows: intermediate } = gate;
  checkBytes("rounded", rounded, roundedMlpBytes(maxRows, hidden, intermediate));
  const wide = 2 * maxRows * intermediate;
  const narrow = rounded.slice(0, 2 * maxRows * hidden);
  const gateOut = rounded.slice(narrow.bytes, wide);
  const upOut = rounded.slice(narrow.bytes + wide, wide);
  const rows = { rowCount, maxRows };
  enqueueHalfRounding(launch, { x, out: narrow, width: hidden, stride: hidden, ...rows });
  const inner = { x: narrow, outType: "f16", mode: "store", scale: 1, ...rows } as const;
  enqueueMatrixProduct(launch, { ...inner, weight: gate, out: gateOut });
  enqueueMatrixProduct(launch, { ...inner, weight: up, out: upOut });
  launch(combineKernel, maxRows, [gateOut, upOut, rowCount], [intermediate / 8]);
  enqueueMatrixProduct(launch, {
    ...{ x: gateOut, weight: down, out: args.out, outType: "f32", mode, scale },
    ...rows,
  });
  return true;
}
