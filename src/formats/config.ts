import { UserError } from "../base/errors.ts";
import { parseExperts, parseMlpLayers } from "./config-experts.ts";
import type { ConfigFields } from "./config-fields.ts";
import { badField, configFields, parseFields } from "./config-fields.ts";
import { parseQueryScaling, parseRope } from "./config-rope.ts";
import type { AttentionConfig, ModelConfig, ModelType, ScalingConfig } from "./config-types.ts";
import { modelTypes } from "./config-types.ts";

export type * from "./config-types.ts";
export { modelTypes } from "./config-types.ts";

/** What a multimodal checkpoint says once, outside its `text_config`. */
const sharedFields = ["quantization_config", "tie_word_embeddings", "bos_token_id", "eos_token_id"];

/** Embeddings are tied where config.json does not say: the default of these types. */
const tiedByDefault: readonly ModelType[] = ["minicpm3", "youtu"];

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function asModelType(value: unknown): ModelType | undefined {
  return modelTypes.find((type) => type === value);
}

/** The config of the text model, which multimodal checkpoints nest. */
function findTextConfig(config: Record<string, unknown>): Record<string, unknown> {
  const nested = config.text_config;
  if (asModelType(config.model_type) || !isRecord(nested) || !asModelType(nested.model_type)) return config;
  const shared = sharedFields.filter((field) => config[field] != null).map((field) => [field, config[field]]);
  return { ...Object.fromEntries(shared), ...nested };
}

function refuseUnsupported(modelType: ModelType, fields: ConfigFields): void {
  const { num_attention_heads: heads, num_key_value_heads: keyValueHeads } = fields;
  if (keyValueHeads != null && keyValueHeads !== heads) {
    throw badField("num_key_value_heads", keyValueHeads, `num_attention_heads, which is ${heads}`);
  }
  const activation = fields.hidden_act ?? "silu";
  if (activation !== "silu") throw badField("hidden_act", activation, '"silu"');
  if (fields.attention_bias) throw badField("attention_bias", true, "false: biases are not supported");
  if (fields.mlp_bias) throw badField("mlp_bias", true, "false: biases are not supported");
  if (modelType === "mistral4" && !fields.rope_parameters && !fields.rope_scaling) {
    throw badField("rope_parameters", fields.rope_parameters, "an object");
  }
}

function parseAttention(modelType: ModelType, fields: ConfigFields): AttentionConfig {
  const heads = fields.num_attention_heads;
  const vHeadDim = fields.v_head_dim ?? (modelType === "minicpm3" ? fields.hidden_size / heads : undefined);
  if (vHeadDim === undefined) throw badField("v_head_dim", undefined, "a multiple of 8");
  if (vHeadDim % 8 !== 0) {
    const wanted = `heads whose width, hidden_size (${fields.hidden_size}) over their number, is a multiple of 8`;
    throw badField("num_attention_heads", heads, wanted);
  }
  const halves =
    modelType === "minicpm3" || (modelType !== "deepseek_v2" && fields.rope_interleave === false);
  return {
    heads,
    qLoraRank: fields.q_lora_rank,
    kvLoraRank: fields.kv_lora_rank,
    qkNopeHeadDim: fields.qk_nope_head_dim,
    qkRopeHeadDim: fields.qk_rope_head_dim,
    vHeadDim,
    latentNormEps: 1e-6,
    rotary: halves ? "halves" : "interleaved",
    queryScaling: parseQueryScaling(modelType, fields),
  };
}

function parseScaling(modelType: ModelType, fields: ConfigFields): ScalingConfig {
  if (modelType !== "minicpm3") return { embedding: 1, residual: 1, logits: 1 };
  const { scale_emb: embedding, scale_depth: depth, dim_model_base: base } = fields;
  if (embedding == null) throw badField("scale_emb", embedding, "a number");
  if (depth === undefined) throw badField("scale_depth", depth, "a number, or null for none");
  if (base === undefined) throw badField("dim_model_base", base, "a number, or null for none");
  return {
    embedding,
    residual: depth === null ? 1 : depth / Math.sqrt(fields.num_hidden_layers),
    logits: base === null ? 1 : base / fields.hidden_size,
  };
}

function asIds(ids: number | number[] | null | undefined): readonly number[] {
  if (ids == null) return [];
  return typeof ids === "number" ? [ids] : ids;
}

/** Throws UserError when the weights are quantised, which no kernel reads yet. */
export function refuseQuantised(config: Record<string, unknown>): void {
  const quantised = config.quantization_config;
  if (quantised == null) return;
  const method = (quantised as Record<string, unknown>).quant_method;
  const kind = typeof method === "string" ? ` (${method})` : "";
  throw new UserError(
    `config.json: quantization_config says the weights are quantised${kind}, which is not supported yet; use a bf16, f16 or f32 checkpoint of the model.`,
  );
}

function parseZeroEmbeddingId(modelType: ModelType, fields: ConfigFields): number | null {
  const padding = fields.pad_token_id ?? null;
  if (modelType !== "youtu" || padding === null) return null;
  if (padding >= fields.vocab_size) {
    throw badField("pad_token_id", padding, `less than vocab_size, which is ${fields.vocab_size}`);
  }
  const used = [fields.bos_token_id, ...asIds(fields.eos_token_id)];
  return used.includes(padding) ? null : padding;
}

/**
 * Reads the parsed config.json of a checkpoint of one of {@link modelTypes}, nested in `text_config` or not, in the
 * older (`rope_scaling`, `rope_theta`) or the newer (`rope_parameters`) spelling. Throws UserError, one sentence that
 * names the field, what came and what was expected, for another type, a missing or absurd field, an unsupported
 * variant, or quantised weights.
 */
export function parseModelConfig(json: unknown): ModelConfig {
  if (!isRecord(json)) throw badField("its content", json, "an object");
  const config = findTextConfig(json);
  const modelType = asModelType(config.model_type);
  if (!modelType) throw badField("model_type", config.model_type, `one of ${modelTypes.join(", ")}`);
  refuseQuantised(config);
  const fields = parseFields(configFields, config);
  refuseUnsupported(modelType, fields);
  const mlpLayers = parseMlpLayers(modelType, fields);
  return {
    modelType,
    vocabSize: fields.vocab_size,
    hiddenSize: fields.hidden_size,
    numLayers: fields.num_hidden_layers,
    rmsNormEps: fields.rms_norm_eps,
    maxPositionEmbeddings: fields.max_position_embeddings,
    tieWordEmbeddings: fields.tie_word_embeddings ?? tiedByDefault.includes(modelType),
    bosTokenId: fields.bos_token_id ?? null,
    eosTokenIds: asIds(fields.eos_token_id),
    zeroEmbeddingId: parseZeroEmbeddingId(modelType, fields),
    attention: parseAttention(modelType, fields),
    rope: parseRope(fields),
    mlpLayers,
    intermediateSize: fields.intermediate_size,
    experts: mlpLayers.includes("sparse") ? parseExperts(modelType, config) : null,
    scaling: parseScaling(modelType, fields),
  };
}
