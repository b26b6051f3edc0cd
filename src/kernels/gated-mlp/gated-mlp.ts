import { checkInteger } from "../../base/checks.ts";
import { ceilDivide } from "../../base/integers.ts";
import type { DeviceBuffer, KernelSource, Launch } from "../../device/device.ts";
import type { CudaProjection } from "../common/projection.cuda.ts";
import { enqueueLinear, ITEM_OUTPUTS } from "../common/projection.ts";
import { enqueueProjection } from "../common/projection.webgpu.ts";
import { checkBytes, checkWeight, dtypeCode, type WeightMatrix, weightBytes } from "../common/weight.ts";
import { enqueueGateUpCuda, enqueueRoundedMlp } from "./gated-mlp.cuda.ts";
import { enqueueHalfMlp } from "./gated-mlp.webgpu.ts";

/** One record per launch of `gatedMlpGateUp`. */
export interface GatedMlpGateUpArguments extends Pick<CudaProjection, "norm"> {
  /** f32 [maxRows, hidden]. */
  readonly x: DeviceBuffer;
  /** [intermediate, hidden]. */
  readonly gate: WeightMatrix;
  /** [intermediate, hidden]. */
  readonly up: WeightMatrix;
  /** f32 [maxRows, intermediate]. */
  readonly out: DeviceBuffer;
  /** i32 [1]: rows in use; later rows are neither read nor written. */
  readonly rowCount: DeviceBuffer;
  readonly maxRows: number;
}

const kernel: KernelSource = {
  name: "gated-mlp.gate-up",
  buffers: ["x", "gate", "up", "out", "rowCount"],
  scalars: [
    ["inputs", "i32"],
    ["outputs", "i32"],
    ["gateDtype", "i32"],
    ["upDtype", "i32"],
  ],
  cpu: "gatedMlpGateUp",
};

/**
 * out = silu(x · gateᵀ) · (x · upᵀ) for each row, accumulated in float32: the first stage of `gatedMlp`. Throws
 * RangeError for shapes that do not fit each other or the buffers.
 */
export function gatedMlpGateUp(launch: Launch, args: GatedMlpGateUpArguments): void {
  const { x, gate, up, out, rowCount, maxRows } = args;
  checkWeight("gate", gate);
  checkWeight("up", up);
  checkInteger("maxRows", maxRows, { min: 1 });
  if (up.rows !== gate.rows || up.columns !== gate.columns) {
    throw new RangeError(
      `up: expected the shape of gate, [${gate.rows}, ${gate.columns}], got [${up.rows}, ${up.columns}]`,
    );
  }
  checkBytes("x", x, maxRows * gate.columns * 4);
  checkBytes("out", out, maxRows * gate.rows * 4);
  if (launch.target.kind === "cuda") {
    enqueueGateUpCuda(launch, args);
    return;
  }
  if (launch.target.kind === "webgpu") {
    enqueueProjection(launch, {
      ...{ name: "gated-mlp.gate-up", x, xStride: gate.columns, first: gate, second: up, out },
      ...{ accumulate: false, scale: 1, rows: rowCount, maxRows, norm: args.norm },
    });
    return;
  }
  const scalars = [gate.columns, gate.rows, dtypeCode[gate.dtype], dtypeCode[up.dtype]];
  launch(kernel, ceilDivide(gate.rows, ITEM_OUTPUTS), [x, gate.buffer, up.buffer, out, rowCount], scalars);
}

/** One record per launch of `gatedMlp`. */
export interface GatedMlpArguments extends Omit<GatedMlpGateUpArguments, "out"> {
  /** [hidden, intermediate]. */
  readonly down: WeightMatrix;
  /** f32 [maxRows, hidden]; not `x`. */
  readonly out: DeviceBuffer;
  /** Whether `out` is replaced or added to. */
  readonly mode: "store" | "accumulate";
  /** Multiplies the result; default 1. */
  readonly scale?: number;
  /** f32 [maxRows, intermediate]. */
  readonly workspace: DeviceBuffer;
  /**
   * Memory of `roundedMlpBytes` bytes: on CUDA, activations are rounded to bf16 there from 17 rows on, where the weights are
   * bf16; rows of `out` past those in use are written then. Left out: float32.
   */
  readonly rounded?: DeviceBuffer | undefined;
  /** Whether `rounded` begins with x in bf16 already. */
  readonly isRounded?: boolean;
}

/**
 * out = (or +=) scale · (silu(x · gateᵀ) · (x · upᵀ)) · downᵀ for each row: SwiGLU of Shazeer 2020, eq. 6, in two
 * launches. Throws RangeError for shapes that do not fit each other or the buffers.
 */
export function gatedMlp(launch: Launch, args: GatedMlpArguments): void {
  const { gate, down, workspace, mode, scale = 1, rowCount, maxRows } = args;
  if (down.columns !== gate.rows || down.rows !== gate.columns) {
    throw new RangeError(
      `down: expected the shape [${gate.columns}, ${gate.rows}], got [${down.rows}, ${down.columns}]`,
    );
  }
  if (enqueueRoundedMlp(launch, args) || enqueueHalfMlp(launch, args)) return;
  gatedMlpGateUp(launch, { ...args, out: workspace });
  enqueueLinear(launch, { x: workspace, weight: down, out: args.out, mode, scale, rowCount, maxRows });
}

/** FLOPs and bytes of one call of `gatedMlp` over `rows` rows. */
export function gatedMlpCost(
  rows: number,
  args: Record<"gate" | "up" | "down", Omit<WeightMatrix, "buffer">>,
): { flops: number; bytes: number } {
  const { rows: intermediate, columns: hidden } = args.gate;
  const weights = weightBytes(args.gate) + weightBytes(args.up) + weightBytes(args.down);
  const activations = rows * 4 * (2 * hidden + 2 * intermediate);
  return { flops: 6 * rows * hidden * intermediate, bytes: weights + activations };
}
