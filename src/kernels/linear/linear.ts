import type { DeviceBuffer, Launch } from "../../device/device.ts";
import { fusesNorm } from "../common/projection.cuda.ts";
import { multipliesOnMatrixUnits } from "../common/projection.matrix.webgpu.ts";
import { enqueueLinear, type LinearArguments } from "../common/projection.ts";
import { checkBytes, checkWeight, type WeightMatrix, weightBytes } from "../common/weight.ts";

export {
  type CudaProjection,
  fusesExpertNorm,
  fusesNorm,
  multipliesRounded,
} from "../common/projection.cuda.ts";
export { hasMatrixUnits, multipliesOnMatrixUnits } from "../common/projection.matrix.webgpu.ts";
export type { LinearArguments } from "../common/projection.ts";

/**
 * out = (or +=) scale · (x · Wᵀ + bias) for each row, accumulated in float32, in an order that depends neither on the
 * number of rows nor on threads. Throws RangeError for shapes that do not fit the buffers.
 */
export function linear(launch: Launch, args: LinearArguments): void {
  enqueueLinear(launch, args);
}

/** One record per call of `linearPair`: two matrices over the same rows of x. */
export interface LinearPairArguments
  extends Pick<LinearArguments, "x" | "norm" | "rounded" | "isRounded" | "rowCount" | "maxRows"> {
  readonly first: { readonly weight: WeightMatrix; readonly out: DeviceBuffer };
  readonly second: { readonly weight: WeightMatrix; readonly out: DeviceBuffer };
}

/** Two linears over the same x; few rows on a GPU take them in one launch. Throws as `linear` does. */
export function linearPair(launch: Launch, args: LinearPairArguments): void {
  const { first, second, ...rest } = args;
  const shared = { ...rest, mode: "store" } as const;
  const isOne = fusesNorm(launch.target, args.maxRows) && first.weight.dtype === second.weight.dtype;
  if (isOne && first.weight.columns === second.weight.columns) {
    checkWeight("second.weight", second.weight);
    checkBytes("second.out", second.out, args.maxRows * second.weight.rows * 4);
    enqueueLinear(launch, { ...shared, ...first, second });
    return;
  }
  const weights = [first.weight, second.weight];
  const roundOnce =
    rest.rounded !== undefined &&
    first.weight.columns === second.weight.columns &&
    weights.every((weight) => multipliesOnMatrixUnits(launch.target, weight, args.maxRows));
  enqueueLinear(launch, { ...shared, ...first });
  enqueueLinear(launch, { ...shared, ...second, isRounded: rest.isRounded || roundOnce });
}

/** FLOPs and bytes of one call over `rows` rows. */
export function linearCost(
  rows: number,
  weight: Omit<WeightMatrix, "buffer">,
): { flops: number; bytes: number } {
  const activations = rows * (weight.columns + weight.rows) * 4;
  return { flops: 2 * rows * weight.rows * weight.columns, bytes: weightBytes(weight) + activations };
}
