import { ceilDivide } from "../../base/integers.ts";
import type { DeviceBuffer, KernelSource, Launch } from "../../device/device.ts";
import matrixUnits from "./projection.subgroup-matrix.wgsl.ts";
import { bindingRuns } from "./projection.webgpu.ts";
import roundRows from "./round-rows.wgsl.ts";
import { dtypeCode, type WeightMatrix, weightBytes } from "./weight.ts";

/** Rows and outputs of a workgroup. */
const TILE = 128;
/** Rows from which the matrix units are worth rounding the activations. */
const LEAST_ROWS = 17;

/** Whether an adapter multiplies matrices of f16, 16 × 16 × 16, into float32 by subgroups of 32. */
export function hasMatrixUnits({ kind, limits }: Launch["target"]): boolean {
  const { features, webgpu } = limits;
  if (kind !== "webgpu" || !features.has("subgroup-matrix") || !features.has("shader-f16")) return false;
  return webgpu?.subgroupSizes.every((size) => size === 32) ?? false;
}

/**
 * Whether rows may be rounded to f16 and multiplied on the matrix units: the adapter has them, the weights are
 * 16 bits wide and the rows many.
 */
export function multipliesOnMatrixUnits(
  target: Launch["target"],
  weight: Pick<WeightMatrix, "dtype" | "rows">,
  maxRows: number,
): boolean {
  return hasMatrixUnits(target) && maxRows >= LEAST_ROWS && weight.dtype !== "f32" && weight.rows % 8 === 0;
}

const roundKernel: KernelSource = {
  name: "linear.round",
  buffers: ["x", "out", "rowCount"],
  scalars: [
    ["width", "i32"],
    ["stride", "i32"],
  ],
  webgpu: { code: roundRows },
};

/** Rounds the rows in use of x, f32 [maxRows, stride] with a stride that is a multiple of 4, to f16 [maxRows, width]. */
export function enqueueHalfRounding(
  launch: Launch,
  args: Record<"x" | "out" | "rowCount", DeviceBuffer> & Record<"width" | "stride" | "maxRows", number>,
): void {
  launch(roundKernel, args.maxRows, [args.x, args.out, args.rowCount], [args.width, args.stride]);
}

/** A product on the matrix units. */
export interface MatrixProduct {
  /** f16 [maxRows, weight.columns]. */
  readonly x: DeviceBuffer;
  readonly weight: WeightMatrix;
  /** [maxRows, weight.rows] in `outType`. */
  readonly out: DeviceBuffer;
  readonly outType: "f32" | "f16";
  readonly mode: "store" | "accumulate";
  readonly scale: number;
  readonly rowCount: DeviceBuffer;
  readonly maxRows: number;
}

/** out = (or +=) scale · x · Wᵀ with float32 sums; f16 results are stored and stay within its range. */
export function enqueueMatrixProduct(launch: Launch, product: MatrixProduct): void {
  const { x, weight, out, rowCount, maxRows, scale } = product;
  const source: KernelSource = {
    name: "linear.matrix-units",
    buffers: ["x", "first", "out", "rowCount"],
    scalars: [
      ["inputs", "i32"],
      ["outputs", "i32"],
      ["begin", "i32"],
      ["count", "i32"],
      ["maxRows", "i32"],
      ["scale", "f32"],
    ],
    webgpu: {
      code: matrixUnits,
      enables: ["f16", "subgroups", "chromium_experimental_subgroup_matrix"],
      constants: {
        DTYPE: dtypeCode[weight.dtype],
        NARROW: product.outType === "f16",
        ACCUMULATE: product.mode === "accumulate",
      },
    },
  };
  const rowBytes = weightBytes({ ...weight, rows: 1 });
  // Eight rows at a time: a launch's outputs stay a multiple of 8.
  for (const [from, eights] of bindingRuns(
    "linear",
    weight.rows / 8,
    8 * rowBytes,
    launch.target.limits.webgpu!.bindingBytes,
  )) {
    const count = 8 * eights;
    launch(
      source,
      ceilDivide(count, TILE) * ceilDivide(maxRows, TILE),
      [x, weight.buffer.slice(8 * from * rowBytes, count * rowBytes), out, rowCount],
      [weight.columns, weight.rows, 8 * from, count, maxRows, scale],
    );
  }
}
