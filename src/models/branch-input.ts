import type { DeviceBuffer } from "../device/device.ts";
import { fusesNorm, multipliesOnMatrixUnits, multipliesRounded } from "../kernels/linear/linear.ts";
import { rmsNorm } from "../kernels/rms-norm/rms-norm.ts";
import type { LayerContext } from "./layers.ts";
import type { Matrix } from "./weight-source.ts";

/** What the matrices of a branch read, as `linear` and `gatedMlp` take it. */
export interface BranchInput {
  readonly x: DeviceBuffer;
  readonly norm?: { readonly weight: DeviceBuffer; readonly epsilon: number } | undefined;
  readonly rounded?: DeviceBuffer;
  readonly isRounded?: boolean;
}

/** A place for activations in 16 bits, where this step rounds them. */
export function roundedOf({ buffers }: LayerContext): { rounded?: DeviceBuffer } {
  return buffers.rounded === null ? {} : { rounded: buffers.rounded };
}

function normOf({ config, buffers, inputs }: LayerContext, weight: DeviceBuffer) {
  const rows = { rowCount: inputs.rowCount, maxRows: buffers.maxRows };
  return { x: buffers.hidden, weight, width: config.hiddenSize, epsilon: config.rmsNormEps, ...rows };
}

/** The residual stream, normed to float32 for readers of any kind. */
export function normedInput(context: LayerContext, weight: DeviceBuffer): BranchInput {
  const { launch, buffers } = context;
  rmsNorm(launch, { ...normOf(context, weight), out: buffers.normed });
  return { x: buffers.normed, ...roundedOf(context) };
}

/** The residual stream, to be normed by its readers, where few rows stream past their weights; null elsewhere. */
export function streamedInput(
  { launch, config, buffers }: LayerContext,
  weight: DeviceBuffer,
): BranchInput | null {
  if (!fusesNorm(launch.target, buffers.maxRows)) return null;
  return { x: buffers.hidden, norm: { weight, epsilon: config.rmsNormEps } };
}

/**
 * The residual stream, normed for `matrices`: by themselves as they read it where few rows stream past them, into 16 bits where
 * they round it anyway, into float32 else.
 */
export function branchInput(
  context: LayerContext,
  weight: DeviceBuffer,
  matrices: readonly Matrix[],
): BranchInput {
  const { launch, buffers } = context;
  const streamed = streamedInput(context, weight);
  if (streamed !== null) return streamed;
  const { rounded } = buffers;
  const { target } = launch;
  const isRounded = matrices.every(
    (one) =>
      multipliesRounded(target, one, buffers.maxRows) ||
      multipliesOnMatrixUnits(target, one, buffers.maxRows),
  );
  if (rounded === null || !isRounded) return normedInput(context, weight);
  const outDtype = target.kind === "cuda" ? "bf16" : "f16";
  rmsNorm(launch, { ...normOf(context, weight), out: rounded, outDtype });
  return { x: buffers.normed, rounded, isRounded };
}
