import type { DeviceBuffer, Launch, WebGpuEntry } from "../../device/device.ts";
import { enqueueProjection } from "../common/projection.webgpu.ts";
import type { WeightMatrix } from "../common/weight.ts";
import combine from "./expert-mlp.combine.wgsl.ts";
import plan from "./expert-mlp.plan.wgsl.ts";

/** One workgroup. */
export const planWebGpu: WebGpuEntry = { code: plan };

/** Rows as workgroups of 128. */
export const combineWebGpu: WebGpuEntry = { code: combine };

/** Both products of all experts that have pairs. */
export interface ExpertProducts {
  readonly maxRows: number;
  readonly experts: number;
  readonly perToken: number;
  readonly hidden: number;
  readonly intermediate: number;
  readonly x: DeviceBuffer;
  readonly plan: DeviceBuffer;
  /** f32 [pairs, intermediate]. */
  readonly inner: DeviceBuffer;
  /** f32 [pairs, hidden]. */
  readonly values: DeviceBuffer;
  readonly gate: WeightMatrix;
  readonly up: DeviceBuffer;
  /** First row of `up` in its buffer. */
  readonly upRow: number;
  /** Weight rows from one expert's gate to the next. */
  readonly expertRows: number;
  readonly down: WeightMatrix;
}

/** silu(gate · x) · (up · x) and the down projection of every pair, by the plan. */
export function enqueueExpertProducts(launch: Launch, products: ExpertProducts): void {
  const { maxRows, experts, perToken, hidden, intermediate, plan: rows, expertRows, gate, down } = products;
  const common = { rows, maxRows, accumulate: false, scale: 1 };
  enqueueProjection(launch, {
    ...{ ...common, name: "expert-mlp.gate-up", x: products.x, xStride: hidden, out: products.inner },
    first: { ...gate, rows: intermediate },
    second: { ...gate, rows: intermediate, buffer: products.up },
    experts: { experts, expertRows, share: perToken, secondRow: products.upRow },
  });
  enqueueProjection(launch, {
    ...{ ...common, name: "expert-mlp.down", x: products.inner, xStride: intermediate, out: products.values },
    first: { ...down, rows: hidden },
    experts: { experts, expertRows: hidden, share: 1, secondRow: 0 },
  });
}
