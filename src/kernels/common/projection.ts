import { checkFinite, checkInteger, checkOneOf } from "../../base/checks.ts";
import { ceilDivide } from "../../base/integers.ts";
import type { DeviceBuffer, KernelSource, Launch } from "../../device/device.ts";
import { type CudaProjection, enqueueLinearCuda } from "./projection.cuda.ts";
import {
  enqueueHalfRounding,
  enqueueMatrixProduct,
  multipliesOnMatrixUnits,
} from "./projection.matrix.webgpu.ts";
import { enqueueProjection } from "./projection.webgpu.ts";
import { checkBytes, checkWeight, dtypeCode, type WeightMatrix } from "./weight.ts";

/** Outputs of an item; projection.as.ts holds the same number. */
export const ITEM_OUTPUTS = 16;

/** One record per launch of the linear kernel. */
export interface LinearArguments extends CudaProjection {
  /** f32 [maxRows, xStride]; the first `weight.columns` floats of a row are read. */
  readonly x: DeviceBuffer;
  /** Floats from one row of x to the next; default `weight.columns`. */
  readonly xStride?: number;
  /** [outputs, inputs]. */
  readonly weight: WeightMatrix;
  /** f32 [outputs]. */
  readonly bias?: DeviceBuffer | undefined;
  /** f32 [maxRows, outputs]; not `x`. */
  readonly out: DeviceBuffer;
  /** Whether `out` is replaced or added to. */
  readonly mode: "store" | "accumulate";
  /** Multiplies the sum and the bias; default 1. */
  readonly scale?: number;
  /** i32 [1]: rows in use; later rows are neither read nor written. */
  readonly rowCount: DeviceBuffer;
  readonly maxRows: number;
}

const kernel: KernelSource = {
  name: "linear",
  buffers: ["x", "weight", "bias", "out", "rowCount"],
  scalars: [
    ["inputs", "i32"],
    ["outputs", "i32"],
    ["xStride", "i32"],
    ["dtype", "i32"],
    ["mode", "i32"],
    ["hasBias", "i32"],
    ["scale", "f32"],
  ],
  cpu: "linear",
};

/**
 * out = (or +=) scale · (x · Wᵀ + bias) for each row, accumulated in float32, in an order that depends neither on the
 * number of rows nor on threads. Throws RangeError for shapes that do not fit the buffers.
 */
export function enqueueLinear(launch: Launch, args: LinearArguments): void {
  const { weight, maxRows, xStride = weight.columns, scale = 1 } = args;
  checkWeight("weight", weight);
  checkInteger("maxRows", maxRows, { min: 1 });
  checkInteger("xStride", xStride, { min: weight.columns });
  checkFinite("scale", scale);
  checkOneOf("mode", args.mode, ["store", "accumulate"]);
  checkBytes("x", args.x, ((maxRows - 1) * xStride + weight.columns) * 4);
  checkBytes("out", args.out, maxRows * weight.rows * 4);
  if (args.bias !== undefined) checkBytes("bias", args.bias, weight.rows * 4);
  if (launch.target.kind === "cuda") {
    enqueueLinearCuda(launch, args);
    return;
  }
  if (launch.target.kind === "webgpu") {
    const { x, bias, out, rowCount, rounded } = args;
    const accumulate = args.mode === "accumulate";
    if (rounded && !bias && xStride % 4 === 0 && multipliesOnMatrixUnits(launch.target, weight, maxRows)) {
      const width = weight.columns;
      checkBytes("rounded", rounded, maxRows * width * 2);
      const rows = { rowCount, maxRows };
      if (!args.isRounded || scale !== 1) {
        enqueueHalfRounding(launch, { x, out: rounded, width, stride: xStride, scale, ...rows });
      }
      enqueueMatrixProduct(launch, { x: rounded, weight, out, mode: args.mode, ...rows });
      return;
    }
    enqueueProjection(launch, {
      ...{ name: "linear", x, xStride, first: weight, bias, out, accumulate, scale, rows: rowCount, maxRows },
      ...{ norm: args.norm, pair: args.second },
    });
    return;
  }
  const buffers = [args.x, weight.buffer, args.bias ?? args.out, args.out, args.rowCount];
  const scalars = [weight.columns, weight.rows, xStride, dtypeCode[weight.dtype]];
  scalars.push(args.mode === "accumulate" ? 1 : 0, args.bias === undefined ? 0 : 1, scale);
  launch(kernel, ceilDivide(weight.rows, ITEM_OUTPUTS), buffers, scalars);
}
