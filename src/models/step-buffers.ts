import { bytesPerElement, type WeightDType } from "../base/dtypes.ts";
import type { Device, DeviceBuffer } from "../device/device.ts";
import type { ModelConfig } from "../formats/config-types.ts";
import type { LatentDtype } from "../kernels/common/latent-cache.ts";
import { expertMlpWorkspaceBytes } from "../kernels/expert-mlp/expert-mlp.ts";
import { attentionDtype, roundsActivations } from "./attention-dtype.ts";

/** Activations of one forward pass over at most `maxRows` tokens, reused by every layer. */
export interface StepBuffers {
  readonly maxRows: number;
  /** f32 [n, hidden]: the residual stream. */
  readonly hidden: DeviceBuffer;
  /** f32 [n, hidden]: what a branch reads. */
  readonly normed: DeviceBuffer;
  /** f32 [n, q_lora_rank]; `normed` where the query has no rank. */
  readonly queryLatent: DeviceBuffer;
  /** f32 [n, heads, d_n + d_r]. */
  readonly query: DeviceBuffer;
  readonly attention: AttentionBuffers;
  /** f32 [n, d_c + d_r]. */
  readonly latent: DeviceBuffer;
  /** f32 [n, heads · d_v]; in the memory of `normed`, which nobody reads any more once there are values. */
  readonly values: DeviceBuffer;
  /** f32 [n, intermediate] of the widest MLP; `rounded` itself where there is one, since an MLP uses one of the two. */
  readonly mlp: DeviceBuffer;
  readonly experts: ExpertBuffers | null;
  /** A place for activations that are rounded to 16 bits on the way to matrix units; null where none are. */
  readonly rounded: DeviceBuffer | null;
  /** Gives everything back. */
  free(): void;
}

/** What attention reads and leaves, between its prologue and its epilogue. */
export interface AttentionBuffers {
  readonly phase: StepPhase;
  /** Element type in which queries meet the cache. */
  readonly dtype: WeightDType;
  /** decode: [n, heads, d_c + d_r], absorbed; prefill: [n, heads, d_n + d_r], rotated: `query` itself where that is f32. */
  readonly query: DeviceBuffer;
  /** decode in 16 bits: the results [n, heads, d_c] in `dtype`, and f32 [n, heads]; null where the epilogue merges. */
  readonly merged: { readonly attended: DeviceBuffer; readonly lse: DeviceBuffer } | null;
}

/** What routing and experts need beside. */
export interface ExpertBuffers {
  /** f32 [n, experts]. */
  readonly logits: DeviceBuffer;
  /** i32 [n, perToken]. */
  readonly ids: DeviceBuffer;
  /** f32 [n, perToken]. */
  readonly weights: DeviceBuffer;
  readonly workspace: DeviceBuffer;
}

/** Which attention a step runs: over the latents themselves, or over keys and values expanded from them. */
export type StepPhase = "decode" | "prefill";

function expertBuffers(
  { experts, hiddenSize }: ModelConfig,
  maxRows: number,
  allocate: Device["allocate"],
): ExpertBuffers | null {
  if (experts === null) return null;
  const { count, perToken, intermediateSize } = experts;
  const shape = { maxRows, experts: count, perToken, hidden: hiddenSize, intermediate: intermediateSize };
  return {
    logits: allocate(maxRows * count * 4, "router logits"),
    ids: allocate(maxRows * perToken * 4, "expert ids"),
    weights: allocate(maxRows * perToken * 4, "expert weights"),
    workspace: allocate(expertMlpWorkspaceBytes(shape), "expert workspace"),
  };
}

function attentionBuffers(
  { heads, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim }: ModelConfig["attention"],
  phase: StepPhase,
  dtype: WeightDType,
  query: DeviceBuffer,
  rows: (width: number, label: string, dtype?: WeightDType) => DeviceBuffer,
): AttentionBuffers {
  if (phase === "prefill") {
    const width = heads * (qkNopeHeadDim + qkRopeHeadDim);
    const rotated = dtype === "f32" ? query : rows(width, "rotated query", dtype);
    return { phase, dtype, query: rotated, merged: null };
  }
  const absorbed = rows(heads * (kvLoraRank + qkRopeHeadDim), "absorbed query", dtype);
  if (dtype === "f32") return { phase, dtype, query: absorbed, merged: null };
  const attended = rows(heads * kvLoraRank, "attended latents", dtype);
  return { phase, dtype, query: absorbed, merged: { attended, lse: rows(heads, "log-sum-exp") } };
}

/** Values of a row that are rounded at a time: what a branch reads, with the two halves of an MLP behind it. */
function roundedWidth({ attention, hiddenSize, mlpLayers, intermediateSize, experts }: ModelConfig): number {
  const dense = mlpLayers.includes("dense") ? intermediateSize : 0;
  const shared = experts ? experts.sharedCount * experts.intermediateSize : 0;
  const { heads, vHeadDim, qLoraRank } = attention;
  return Math.max(hiddenSize + 2 * Math.max(dense, shared), heads * vHeadDim, qLoraRank ?? 0);
}

/**
 * Allocates the activations of a step over a cache in `cacheDtype`; `isExact` keeps them in float32 everywhere. Throws
 * UserError when the device has no room.
 */
export function allocateStepBuffers(
  device: Pick<Device, "allocate" | "kind" | "limits">,
  config: ModelConfig,
  phase: StepPhase,
  maxRows: number,
  cacheDtype: LatentDtype,
  isExact = false,
): StepBuffers {
  const owned: DeviceBuffer[] = [];
  const allocate = (bytes: number, label: string): DeviceBuffer => {
    const buffer = device.allocate(bytes, label);
    owned.push(buffer);
    return buffer;
  };
  const rows = (width: number, label: string, dtype: WeightDType = "f32") =>
    allocate(maxRows * width * bytesPerElement(dtype), label);
  const { heads, qLoraRank, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = config.attention;
  const sharedWidth = config.experts ? config.experts.sharedCount * config.experts.intermediateSize : 0;
  const denseWidth = config.mlpLayers.includes("dense") ? config.intermediateSize : 0;
  const normed = rows(Math.max(config.hiddenSize, heads * vHeadDim), "normed hidden state or values");
  const query = rows(heads * (qkNopeHeadDim + qkRopeHeadDim), "query");
  const dtype = attentionDtype(device.kind, config, cacheDtype);
  const isRounded = roundsActivations(device, config) && !isExact;
  const rounded = isRounded ? rows(roundedWidth(config), "rounded activations", "bf16") : null;
  return {
    maxRows,
    hidden: rows(config.hiddenSize, "hidden state"),
    normed,
    queryLatent: qLoraRank === null ? normed : rows(qLoraRank, "query latent"),
    query,
    attention: attentionBuffers(config.attention, phase, dtype, query, rows),
    latent: rows(kvLoraRank + qkRopeHeadDim, "latent"),
    values: normed,
    mlp: rounded ?? rows(Math.max(denseWidth, sharedWidth, 1), "MLP"),
    experts: expertBuffers(config, maxRows, allocate),
    rounded,
    free: () => {
      for (const buffer of owned) buffer.free();
    },
  };
}
