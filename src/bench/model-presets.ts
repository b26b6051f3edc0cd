import { UserError } from "../base/errors.ts";
import { parseModelConfig } from "../formats/config.ts";
import type { ModelConfig } from "../formats/config-types.ts";

/** A dense 7B over latent attention: 32 layers, 32 heads of 128, hidden size 4096. */
const dense7b = {
  ...{ model_type: "youtu", vocab_size: 32000, hidden_size: 4096, intermediate_size: 11008 },
  ...{ num_hidden_layers: 32, num_attention_heads: 32, num_key_value_heads: 32 },
  ...{ q_lora_rank: null, kv_lora_rank: 512, qk_nope_head_dim: 128, qk_rope_head_dim: 64, v_head_dim: 128 },
  ...{ hidden_act: "silu", max_position_embeddings: 131072, rms_norm_eps: 1e-6, rope_theta: 10000 },
  ...{ rope_scaling: null, rope_interleave: true, tie_word_embeddings: false },
};

/** deepseek-ai/DeepSeek-V2-Lite */
const deepseekV2Lite = {
  ...{ model_type: "deepseek_v2", vocab_size: 102400, hidden_size: 2048, intermediate_size: 10944 },
  ...{ num_hidden_layers: 27, num_attention_heads: 16, num_key_value_heads: 16 },
  ...{ moe_intermediate_size: 1408, n_shared_experts: 2, n_routed_experts: 64, num_experts_per_tok: 6 },
  ...{ moe_layer_freq: 1, first_k_dense_replace: 1, norm_topk_prob: false, scoring_func: "softmax" },
  ...{ topk_method: "greedy", n_group: 1, topk_group: 1, routed_scaling_factor: 1 },
  ...{ q_lora_rank: null, kv_lora_rank: 512, qk_nope_head_dim: 128, qk_rope_head_dim: 64, v_head_dim: 128 },
  ...{ hidden_act: "silu", max_position_embeddings: 163840, rms_norm_eps: 1e-6, rope_theta: 10000 },
  ...{ rope_scaling: null, tie_word_embeddings: false },
};

/** tencent/Youtu-LLM-2B */
const youtu2b = {
  ...{ model_type: "youtu", vocab_size: 128256, hidden_size: 2048, intermediate_size: 6144 },
  ...{ num_hidden_layers: 32, num_attention_heads: 16, num_key_value_heads: 16 },
  ...{ q_lora_rank: 1536, kv_lora_rank: 512, qk_nope_head_dim: 128, qk_rope_head_dim: 64, v_head_dim: 128 },
  ...{ hidden_act: "silu", max_position_embeddings: 131072, rms_norm_eps: 1e-6, rope_theta: 1600000 },
  ...{ rope_scaling: null, rope_interleave: true, tie_word_embeddings: true },
};

/** openbmb/MiniCPM3-4B */
const minicpm3 = {
  ...{ model_type: "minicpm3", vocab_size: 73448, hidden_size: 2560, intermediate_size: 6400 },
  ...{ num_hidden_layers: 62, num_attention_heads: 40, num_key_value_heads: 40 },
  ...{ q_lora_rank: 768, kv_lora_rank: 256, qk_nope_head_dim: 64, qk_rope_head_dim: 32 },
  ...{ hidden_act: "silu", max_position_embeddings: 32768, rms_norm_eps: 1e-5 },
  ...{ scale_emb: 12, scale_depth: 1.4, dim_model_base: 256 },
};

/** Small enough for tests. */
const tiny = {
  ...{ ...dense7b, vocab_size: 512, hidden_size: 128, intermediate_size: 256, num_hidden_layers: 2 },
  ...{ num_attention_heads: 4, num_key_value_heads: 4, kv_lora_rank: 128, qk_nope_head_dim: 32 },
  ...{ qk_rope_head_dim: 32, v_head_dim: 32, max_position_embeddings: 2048 },
};

const configs: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  "mla-7b": dense7b,
  "mla-7b-256": { ...dense7b, kv_lora_rank: 256 },
  "deepseek-v2-lite": deepseekV2Lite,
  "youtu-2b": youtu2b,
  "minicpm3-4b": minicpm3,
  tiny,
};

/** The model of full heads that the others are compared with: a shape of `bench compare`. */
export const FULL_HEADS_PRESET = "mha-7b";

/** Shapes by name that `bench model --shape` makes weights up for. */
export const presetNames: readonly string[] = [...Object.keys(configs), FULL_HEADS_PRESET];

/** The config of a latent preset. Throws UserError, naming the presets, for another name. */
export function presetConfig(name: string): ModelConfig {
  const config = configs[name];
  if (config === undefined) {
    throw new UserError(`There is no shape ${JSON.stringify(name)}; there are ${presetNames.join(", ")}.`);
  }
  return parseModelConfig(config);
}
