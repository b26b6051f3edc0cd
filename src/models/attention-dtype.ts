import type { WeightDType } from "../base/dtypes.ts";
import type { DeviceKind } from "../device/device.ts";
import type { ModelConfig } from "../formats/config-types.ts";
import type { LatentDtype } from "../kernels/common/latent-cache.ts";
import { queryDtypeOn } from "../kernels/mla-decode/mla-decode.cuda.ts";

/** Models narrower than this compute attention in float32 everywhere: they are bound by launches, not by arithmetic. */
const NARROW = 1024;

/**
 * Whether the activations of many rows may be rounded to bf16 on their way to bf16 weights, as the tensor cores want them: on
 * CUDA, except in narrow models.
 */
export function roundsActivations(kind: DeviceKind, config: ModelConfig): boolean {
  return kind === "cuda" && config.hiddenSize >= NARROW;
}

/**
 * The element type in which a model's queries meet its cache: on CUDA that of a 16-bit cache, which the tensor cores take,
 * except in narrow models, whose text is the same as on the CPU then; f32 elsewhere.
 */
export function attentionDtype(kind: DeviceKind, config: ModelConfig, cache: LatentDtype): WeightDType {
  return config.hiddenSize < NARROW ? "f32" : queryDtypeOn(kind, cache);
}
