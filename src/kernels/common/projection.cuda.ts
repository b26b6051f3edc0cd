import type { CudaMatmul, DeviceBuffer, DeviceLimits, KernelSource, Launch } from "../../device/device.ts";
import { enqueueChainPart, runsInChain } from "./product-chain.cuda.ts";
import type { LinearArguments } from "./projection.ts";
import { normsOnTheWay } from "./projection.webgpu.ts";
import { columnsFor, streamedEntry, streamedGrid } from "./streamed-products.cuda.ts";
import { checkBytes, type WeightMatrix } from "./weight.ts";

/** Rows up to which weights stream past the activations; more are multiplied as matrices where they may be rounded. */
const STREAMED_ROWS = 16;

/** How CUDA takes the activations of a linear, beside float32. */
export interface CudaProjection {
  /**
   * Memory for `maxRows` rows of x in bf16: from 17 rows on they are rounded to it and multiplied by cuBLASLt, where the
   * weights are bf16. All rows up to `maxRows` are computed and written then, those not in use too. On WebGPU they are rounded
   * to f16 instead where the adapter has subgroup matrices. Left out: float32 whatever the number of rows.
   */
  readonly rounded?: DeviceBuffer | undefined;
  /** Whether `rounded` begins with x in bf16 already: x itself is not read then. */
  readonly isRounded?: boolean | undefined;
  /** Multiplies each row of x, and divides by its root mean square: an RMS norm on the way. Where {@link fusesNorm} says so. */
  readonly norm?: { readonly weight: DeviceBuffer; readonly epsilon: number } | undefined;
  /** A second matrix over the same rows of x, without bias, its result stored. Where {@link fusesNorm} says so. */
  readonly second?: { readonly weight: WeightMatrix; readonly out: DeviceBuffer } | undefined;
}

/** Whether a linear of that many rows takes `norm` and `second`: up to 16 rows on CUDA, up to 4 on WebGPU. */
export function fusesNorm(target: Launch["target"], maxRows: number): boolean {
  return (target.kind === "cuda" && maxRows <= STREAMED_ROWS) || normsOnTheWay(target, maxRows);
}

/** Whether `expertMlp` of that many rows takes `norm`. */
export function fusesExpertNorm(target: Launch["target"], maxRows: number): boolean {
  return target.kind === "cuda" && maxRows <= STREAMED_ROWS;
}

/** Whether rows are rounded to bf16 and multiplied as matrices. */
export function multipliesRounded(
  target: Launch["target"],
  weight: Pick<WeightMatrix, "dtype">,
  maxRows: number,
): boolean {
  return target.kind === "cuda" && maxRows > STREAMED_ROWS && weight.dtype === "bf16";
}

function streamedKernel(args: LinearArguments, parts: 1 | 2, limits: DeviceLimits): KernelSource {
  const columns = columnsFor(args.maxRows);
  const { dtype } = args.weight;
  const name = `linear_${dtype}_${parts}_${columns}`;
  return {
    name: "linear",
    buffers: ["x", "norm", "rowCount", "weight", "bias", "out", "weight2", "out2"],
    scalars: [
      ["inputs", "i32"],
      ["outputs", "i32"],
      ["outputs2", "i32"],
      ["xStride", "i32"],
      ["rowBlocks", "i32"],
      ["accumulates", "i32"],
      ["isNormed", "i32"],
      ["hasBias", "i32"],
      ["scale", "f32"],
      ["epsilon", "f32"],
    ],
    cuda: streamedEntry("linear.fatbin", name, { dtype, parts, columns }, limits),
  };
}

/** `linear` on CUDA for any number of rows, in float32, checked before. */
function enqueueStreamed(launch: Launch, args: LinearArguments): void {
  const { x, weight, out, rowCount, maxRows, bias, norm, second, xStride = weight.columns, scale = 1 } = args;
  const matrices = second === undefined ? [weight] : [weight, second.weight];
  const isPlain = bias === undefined && (second === undefined || args.mode === "store");
  if (isPlain && xStride === weight.columns && runsInChain(launch, matrices, maxRows)) {
    const pair = { second: second?.weight, out2: second?.out };
    const shared = { x, norm, rowCount, out, mode: args.mode, scale };
    enqueueChainPart(launch, { name: "linear", kind: "plain", first: weight, ...pair, ...shared });
    return;
  }
  const { limits } = launch.target;
  const outputs2 = second?.weight.rows ?? 0;
  const tilesOf = (parts: number) =>
    Math.ceil(weight.rows / (16 * parts)) + Math.ceil(outputs2 / (16 * parts));
  // Wide tiles read x less often; narrow ones give every multiprocessor two blocks, so that one multiplies while the other ends.
  const parts = weight.dtype === "bf16" && tilesOf(2) >= limits.computeUnits * 1.5 ? 2 : 1;
  const rowBlocks = Math.ceil(maxRows / (8 * columnsFor(maxRows)));
  launch(
    streamedKernel(args, parts, limits),
    streamedGrid(tilesOf(parts) * rowBlocks, limits),
    [
      ...[x, norm?.weight ?? x, rowCount, weight.buffer, bias ?? out, out],
      ...[second?.weight.buffer ?? weight.buffer, second?.out ?? out],
    ],
    [
      ...[weight.columns, weight.rows, outputs2, xStride, rowBlocks, args.mode === "accumulate" ? 1 : 0],
      ...[norm === undefined ? 0 : 1, bias === undefined ? 0 : 1, scale, norm?.epsilon ?? 0],
    ],
  );
}

const roundKernel: KernelSource = {
  name: "linear.round",
  buffers: ["x", "out", "rowCount"],
  scalars: [
    ["width", "i32"],
    ["stride", "i32"],
  ],
  cuda: { module: "rms-norm.fatbin", function: "roundRows", blockSize: 256, overlaps: true },
};

/** Rounds `maxRows` rows of x to bf16. */
export function enqueueRounding(
  launch: Launch,
  args: Pick<LinearArguments, "x" | "rowCount" | "maxRows"> & {
    width: number;
    xStride: number;
    out: DeviceBuffer;
  },
): void {
  const { width, xStride, out, maxRows } = args;
  checkBytes("rounded", out, maxRows * width * 2);
  const blocks = Math.min(Math.ceil((maxRows * width) / 1024), launch.target.limits.computeUnits * 8);
  launch(roundKernel, blocks, [args.x, out, args.rowCount], [width, xStride]);
}

/** out = (or +=) scale · x · Wᵀ by cuBLASLt; x is bf16 [rows, inputs]. */
export function enqueueMatmul(
  launch: Launch,
  args: { x: DeviceBuffer; weight: WeightMatrix; out: DeviceBuffer } & Pick<
    CudaMatmul,
    "rows" | "outType" | "mode" | "scale"
  >,
): void {
  const { x, weight, out, rows, outType, mode, scale } = args;
  checkBytes("out", out, rows * weight.rows * (outType === "f32" ? 4 : 2));
  const sizes = { rows, inputs: weight.columns, outputs: weight.rows };
  const source: KernelSource = {
    ...{ name: "linear.matmul", buffers: ["x", "weight", "out"], scalars: [] },
    cublas: { ...sizes, inputType: "bf16", outType, mode, scale },
  };
  launch(source, 1, [x, weight.buffer, out]);
}

/** `linear` on CUDA, its arguments checked. */
export function enqueueLinearCuda(launch: Launch, args: LinearArguments): void {
  const { weight, maxRows, rounded, xStride = weight.columns, scale = 1 } = args;
  if (args.norm !== undefined && !fusesNorm(launch.target, maxRows)) {
    throw new RangeError(`norm: expected at most ${STREAMED_ROWS} rows, got ${maxRows}`);
  }
  if (
    rounded === undefined ||
    args.bias !== undefined ||
    !multipliesRounded(launch.target, weight, maxRows)
  ) {
    enqueueStreamed(launch, args);
    return;
  }
  if (args.isRounded !== true) {
    enqueueRounding(launch, { ...args, width: weight.columns, xStride, out: rounded });
  }
  enqueueMatmul(launch, {
    x: rounded,
    weight,
    out: args.out,
    rows: maxRows,
    outType: "f32",
    mode: args.mode,
    scale,
  });
}
