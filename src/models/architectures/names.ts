import type { AttentionNames, CheckpointNames, ExpertNames, GatedMlpNames } from "./architecture.ts";

/** A gated MLP at `prefix`. */
export function gatedMlpNames(prefix: string): GatedMlpNames {
  return {
    gate: `${prefix}.gate_proj.weight`,
    up: `${prefix}.up_proj.weight`,
    down: `${prefix}.down_proj.weight`,
  };
}

const latentAttention: AttentionNames = {
  query: "self_attn.q_proj.weight",
  queryCompress: "self_attn.q_a_proj.weight",
  queryNorm: "self_attn.q_a_layernorm.weight",
  queryExpand: "self_attn.q_b_proj.weight",
  latent: "self_attn.kv_a_proj_with_mqa.weight",
  latentNorm: "self_attn.kv_a_layernorm.weight",
  latentExpand: "self_attn.kv_b_proj.weight",
  output: "self_attn.o_proj.weight",
};

/** A decoder of dense layers, as every architecture here names it. */
export const denseDecoder: CheckpointNames = {
  prefixes: ["model."],
  embedding: "embed_tokens.weight",
  norm: "norm.weight",
  head: ["lm_head.weight"],
  layer: "layers.%d.",
  inputNorm: "input_layernorm.weight",
  mlpNorm: "post_attention_layernorm.weight",
  attention: latentAttention,
  dense: gatedMlpNames("mlp"),
  sparse: null,
};

/** Routed experts beside shared ones, as every architecture here names them. */
export const routedExperts: ExpertNames = {
  router: "mlp.gate.weight",
  correctionBias: "mlp.gate.e_score_correction_bias",
  expert: gatedMlpNames("mlp.experts.%d"),
  fused: { gateUp: "mlp.experts.gate_up_proj", down: "mlp.experts.down_proj" },
  shared: gatedMlpNames("mlp.shared_experts"),
};
