import type { WeightDType } from "../base/dtypes.ts";
import type { DeviceKind, Launch } from "../device/device.ts";
import type { ModelConfig } from "../formats/config-types.ts";
import type { LatentDtype } from "../kernels/common/latent-cache.ts";
import { hasMatrixUnits } from "../kernels/linear/linear.ts";
import { queryDtypeOn } from "../kernels/mla-decode/mla-decode.cuda.ts";

/** Models narrower than this compute attention in float32 everywhere: they are bound by launches, not by arithmetic. */
const NARROW = 1024;

/**
 * Whether the activations of many rows may be rounded on their way to 16-bit weights, as matrix units want them: to bf16 on CUDA, to f16
 * on WebGPU where the adapter has such units; except in narrow models. What is rounded is normed, or bounded by f16's range (65,504):
 * normed hidden states and query latents, attention's values, the gated product; the residual stream and all sums stay in float32.
 */
export function roundsActivations(target: Launch["target"], config: ModelConfig): boolean {
  return config.hiddenSize >= NARROW && (target.kind === "cuda" || hasMatrixUnits(target));
}

/**
 * The element type in which a model's queries meet its cache: on CUDA that of a 16-bit cache, which the tensor cores take,
 * except in narrow models, whose text is the same as on the CPU then; f32 elsewhere.
 */
export function attentionDtype(kind: DeviceKind, config: ModelConfig, cache: LatentDtype): WeightDType {
  return config.hiddenSize < NARROW ? "f32" : queryDtypeOn(kind, cache);
}
