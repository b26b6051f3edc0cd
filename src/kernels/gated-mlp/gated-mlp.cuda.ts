import type { KernelSource, Launch } from "../../device/device.ts";
import { enqueueChainPart, runsInChain } from "../common/product-chain.cuda.ts";
import { enqueueMatmul, enqueueRounding, multipliesRounded } from "../common/projection.cuda.ts";
import { columnsFor, streamedEntry, streamedGrid } from "../common/streamed-products.cuda.ts";
import { checkBytes } from "../common/weight.ts";
import type { GatedMlpArguments, GatedMlpGateUpArguments } from "./gated-mlp.ts";

/** The first stage in float32 for any number of rows, its arguments checked. Throws RangeError for weights of two types. */
export function enqueueGateUpCuda(launch: Launch, args: GatedMlpGateUpArguments): void {
  const { x, gate, up, out, rowCount, maxRows, norm } = args;
  const { dtype } = gate;
  if (up.dtype !== dtype) throw new RangeError(`up.dtype: expected ${dtype} like gate, got ${up.dtype}`);
  if (runsInChain(launch, [gate, up], maxRows)) {
    const part = { first: gate, second: up, out, mode: "store", scale: 1 } as const;
    enqueueChainPart(launch, { name: "gated-mlp.gate-up", kind: "gated", x, norm, rowCount, ...part });
    return;
  }
  const columns = columnsFor(maxRows);
  const source: KernelSource = {
    name: "gated-mlp.gate-up",
    buffers: ["x", "norm", "gate", "up", "out", "rowCount"],
    scalars: [
      ["inputs", "i32"],
      ["outputs", "i32"],
      ["rowBlocks", "i32"],
      ["isNormed", "i32"],
      ["epsilon", "f32"],
    ],
    cuda: streamedEntry(
      "gated-mlp.fatbin",
      `gatedMlpGateUp_${dtype}_2_${columns}`,
      { dtype, parts: 2, columns },
      launch.target.limits,
    ),
  };
  const rowBlocks = Math.ceil(maxRows / (8 * columns));
  launch(
    source,
    streamedGrid(Math.ceil(gate.rows / 16) * rowBlocks, launch.target.limits),
    [x, norm?.weight ?? x, gate.buffer, up.buffer, out, rowCount],
    [gate.columns, gate.rows, rowBlocks, norm === undefined ? 0 : 1, norm?.epsilon ?? 0],
  );
}

const combineKernel: KernelSource = {
  name: "gated-mlp.combine",
  buffers: ["gate", "up", "rowCount"],
  scalars: [["eighths", "i32"]],
  cuda: { module: "gated-mlp.fatbin", function: "gatedMlpCombine", blockSize: 256, overlaps: true },
};

/** Bytes of `rounded` that the whole of `gatedMlp` takes with its rows in bf16: x, then gate and up. */
export function roundedMlpBytes(maxRows: number, hidden: number, intermediate: number): number {
  return 2 * maxRows * (hidden + 2 * intermediate);
}

/**
 * All of `gatedMlp` with activations in bf16, where `rounded` has room for them and there are enough rows; says whether it was
 * enqueued. x may be in `rounded` already.
 */
export function enqueueRoundedMlp(launch: Launch, args: GatedMlpArguments): boolean {
  const { gate, up, down, rounded, maxRows, rowCount, mode, scale = 1 } = args;
  const isRounded = [gate, up, down].every((weight) => multipliesRounded(launch.target, weight, maxRows));
  if (rounded === undefined || !isRounded) return false;
  const { columns: hidden, rows: intermediate } = gate;
  checkBytes("rounded", rounded, roundedMlpBytes(maxRows, hidden, intermediate));
  const x = rounded.slice(0, 2 * maxRows * hidden);
  const wide = 2 * maxRows * intermediate;
  const gateOut = rounded.slice(x.bytes, wide);
  const upOut = rounded.slice(x.bytes + wide, wide);
  const common = { rows: maxRows, outType: "bf16", mode: "store", scale: 1 } as const;
  if (args.isRounded !== true) enqueueRounding(launch, { ...args, width: hidden, xStride: hidden, out: x });
  enqueueMatmul(launch, { ...common, x, weight: gate, out: gateOut });
  enqueueMatmul(launch, { ...common, x, weight: up, out: upOut });
  const blocks = launch.target.limits.computeUnits * 8;
  launch(combineKernel, blocks, [gateOut, upOut, rowCount], [intermediate / 8]);
  enqueueMatmul(launch, {
    x: gateOut,
    weight: down,
    out: args.out,
    rows: maxRows,
    outType: "f32",
    mode,
    scale,
  });
  return true;
}
