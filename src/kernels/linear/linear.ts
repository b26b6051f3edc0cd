import type { Launch } from "../../device/device.ts";
import { enqueueLinear, type LinearArguments } from "../common/projection.ts";
import { type WeightMatrix, weightBytes } from "../common/weight.ts";

export type { LinearArguments } from "../common/projection.ts";

/**
 * out = (or +=) scale · (x · Wᵀ + bias) for each row, accumulated in float32, in an order that depends neither on the
 * number of rows nor on threads. Throws RangeError for shapes that do not fit the buffers.
 */
export function linear(launch: Launch, args: LinearArguments): void {
  enqueueLinear(launch, args);
}

/** FLOPs and bytes of one call over `rows` rows. */
export function linearCost(
  rows: number,
  weight: Omit<WeightMatrix, "buffer">,
): { flops: number; bytes: number } {
  const activations = rows * (weight.columns + weight.rows) * 4;
  return { flops: 2 * rows * weight.rows * weight.columns, bytes: weightBytes(weight) + activations };
}
