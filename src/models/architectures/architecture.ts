import type { ModelType } from "../../formats/config-types.ts";

/** Tensor names of a gated MLP, after the prefix of its layer. */
export interface GatedMlpNames {
  readonly gate: string;
  readonly up: string;
  readonly down: string;
}

/** Tensor names of latent attention, after the prefix of its layer. */
export interface AttentionNames {
  /** W_Q, where the query has no rank. */
  readonly query: string;
  /** W_DQ, its norm and W_UQ, where it has one. */
  readonly queryCompress: string;
  readonly queryNorm: string;
  readonly queryExpand: string;
  /** W_DKV and W_KR in one: d_c + d_r rows. */
  readonly latent: string;
  readonly latentNorm: string;
  /** W_UK and W_UV in one: per head d_n rows, then d_v. */
  readonly latentExpand: string;
  readonly output: string;
}

/** Tensor names of routed experts, after the prefix of their layer. */
export interface ExpertNames {
  readonly router: string;
  readonly correctionBias: string;
  /** Of one expert; %d is its number. */
  readonly expert: GatedMlpNames;
  /** Of all experts in one tensor each: [experts, 2 · inter, hidden], gate rows first, and [experts, hidden, inter]. */
  readonly fused: { readonly gateUp: string; readonly down: string };
  readonly shared: GatedMlpNames;
}

/** Where a checkpoint of an architecture keeps its tensors. */
export interface CheckpointNames {
  /** What may stand before every name but the head's; the first that fits is taken. */
  readonly prefixes: readonly string[];
  readonly embedding: string;
  readonly norm: string;
  /** Full names; the first that is there is taken. */
  readonly head: readonly string[];
  /** Prefix of a layer; %d is its number. */
  readonly layer: string;
  readonly inputNorm: string;
  readonly mlpNorm: string;
  readonly attention: AttentionNames;
  readonly dense: GatedMlpNames;
  /** Null for an architecture whose layers are all dense. */
  readonly sparse: ExpertNames | null;
}

/** A model type: what its layers are called in a checkpoint; what they compute is in the config. */
export interface Architecture {
  readonly modelType: ModelType;
  readonly names: CheckpointNames;
}
