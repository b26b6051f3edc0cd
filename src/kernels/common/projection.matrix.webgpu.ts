import { ceilDivide } from "../../base/integers.ts";
import type { DeviceBuffer, KernelSource, Launch } from "../../device/device.ts";
import matrixUnits from "./projection.subgroup-matrix.wgsl.ts";
import { bindingRuns } from "./projection.webgpu.ts";
import {
  chooseLayout,
  DEPTH,
  hasRoomForLayouts,
  type Layout,
  layoutFetchedRows,
  layoutRows,
  layoutWeightRows,
} from "./projection-layouts.webgpu.ts";
import roundRows from "./round-rows.wgsl.ts";
import { dtypeCode, type WeightMatrix, weightBytes } from "./weight.ts";

/** Rows from which the matrix units are worth rounding the activations. */
const LEAST_ROWS = 17;

/** Whether an adapter multiplies matrices of f16, 16 × 16 × 16, into float32 by subgroups of 32. */
export function hasMatrixUnits({ kind, limits }: Launch["target"]): boolean {
  const { features, webgpu } = limits;
  if (kind !== "webgpu" || !features.has("subgroup-matrix") || !features.has("shader-f16")) return false;
  return hasRoomForLayouts(webgpu) && webgpu!.subgroupSizes.every((size) => size === 32);
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
  // A binding of matrices has room for one at least.
  const hasRoom = weight.rows % 8 === 0 && weight.rows >= 16;
  return hasMatrixUnits(target) && maxRows >= LEAST_ROWS && weight.dtype !== "f32" && hasRoom;
}

const roundKernel: KernelSource = {
  name: "linear.round",
  buffers: ["x", "out", "rowCount"],
  scalars: [
    ["width", "i32"],
    ["stride", "i32"],
    ["scale", "f32"],
  ],
  webgpu: { code: roundRows },
};

/** Rows to round. */
export interface HalfRounding {
  /** f32 [maxRows, stride]. */
  readonly x: DeviceBuffer;
  /** f16 [maxRows, width]. */
  readonly out: DeviceBuffer;
  readonly width: number;
  /** A multiple of 4. */
  readonly stride: number;
  /** Multiplies x. */
  readonly scale: number;
  readonly rowCount: DeviceBuffer;
  readonly maxRows: number;
}

/** out = scale · x for the rows in use, in f16 as far as its range goes. */
export function enqueueHalfRounding(launch: Launch, args: HalfRounding): void {
  const { x, out, rowCount, width, stride, scale, maxRows } = args;
  launch(roundKernel, maxRows, [x, out, rowCount], [width, stride, scale]);
}

/** A product on the matrix units. */
export interface MatrixProduct {
  /** f16 [maxRows, weight.columns]. */
  readonly x: DeviceBuffer;
  readonly weight: WeightMatrix;
  /** Of the shape and type of `weight`: out = silu(x · weightᵀ) · (x · secondᵀ) · scale then, in f16 as far as its range goes. */
  readonly second?: WeightMatrix;
  /** [maxRows, weight.rows]: f32, or f16 where there is a second matrix. All rows up to maxRows are written. */
  readonly out: DeviceBuffer;
  readonly mode: "store" | "accumulate";
  /** With `second` alone; default 1. */
  readonly scale?: number;
  readonly rowCount: DeviceBuffer;
  readonly maxRows: number;
}

function matrixKernel(
  { weight, second, mode }: MatrixProduct,
  layout: Layout,
  isInside: boolean,
): KernelSource {
  const fetched = layoutFetchedRows(layout);
  return {
    name: second === undefined ? "linear.matrix-units" : "gated-mlp.matrix-units",
    buffers: ["x", "first", "out", "rowCount", "second"],
    scalars: [
      ...["inputs", "outputs", "begin", "count", "maxRows"].map((name) => [name, "i32"] as const),
      ["scale", "f32"],
    ],
    webgpu: {
      code: matrixUnits,
      enables: ["f16", "subgroups", "chromium_experimental_subgroup_matrix"],
      constants: {
        DTYPE: dtypeCode[weight.dtype],
        GATED: second !== undefined,
        INSIDE: isInside,
        ACCUMULATE: mode === "accumulate",
        EVEN: weight.columns % DEPTH === 0,
        ...layout,
        X_FETCHES: layoutRows(layout) / fetched,
        WEIGHT_FETCHES: layoutWeightRows(layout) / fetched / 2,
      },
    },
  };
}

/** Outputs of a launch, and whether all its tiles lie within the output. */
interface Run {
  readonly from: number;
  readonly count: number;
  readonly isInside: boolean;
}

/** One launch for whole tiles and one for what is left over; eight outputs at a time, since rows of out are words of 8. */
function runsOf({ weight, second, maxRows }: MatrixProduct, layout: Layout, limit: number): Run[] {
  const rowBytes = weightBytes({ ...weight, rows: 1 });
  return bindingRuns("linear", weight.rows / 8, 8 * rowBytes, limit).flatMap(([eight, eights]) => {
    const [from, count] = [8 * eight, 8 * eights];
    const isWhole = second === undefined && maxRows % layoutRows(layout) === 0;
    // What is left over begins at a multiple of 256 bytes of the weights: a row of 8 values has 16.
    const inside = isWhole ? count - (count % layoutWeightRows(layout)) : 0;
    return [
      { from, count: inside, isInside: true },
      { from: from + inside, count: count - inside, isInside: false },
    ].filter((run) => run.count > 0);
  });
}

/** out = (or +=) x · Wᵀ, or the gated product of two matrices, with float32 sums. */
export function enqueueMatrixProduct(launch: Launch, product: MatrixProduct): void {
  const { x, weight, second, out, rowCount, maxRows, scale = 1 } = product;
  const rowBytes = weightBytes({ ...weight, rows: 1 });
  const limits = launch.target.limits.webgpu!;
  const layout = chooseLayout(weight, second !== undefined, maxRows);
  const outputs = layoutWeightRows(layout) / (second === undefined ? 1 : 2);
  for (const { from, count, isInside } of runsOf(product, layout, limits.bindingBytes)) {
    const part = ({ buffer }: WeightMatrix) => buffer.slice(from * rowBytes, count * rowBytes);
    launch(
      matrixKernel(product, layout, isInside),
      ceilDivide(count, outputs) * ceilDivide(maxRows, layoutRows(layout)),
      [x, part(weight), out, rowCount, part(second ?? weight)],
      [weight.columns, weight.rows, from, count, maxRows, scale],
    );
  }
}
