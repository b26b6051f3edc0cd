import { describe, expect, it } from "vitest";
import * as published from "../../tests/fixtures/published-configs.ts";
import { UserError } from "../base/errors.ts";
import { parseModelConfig } from "./config.ts";

const without = (config: object, field: string) =>
  Object.fromEntries(Object.entries(config).filter(([name]) => name !== field));

describe("parseModelConfig, published checkpoints", () => {
  it("deepseek_v2 Lite: no query rank, greedy router, YaRN in the older spelling", () => {
    const config = parseModelConfig(published.deepseekV2Lite);
    expect(config).toMatchObject({
      modelType: "deepseek_v2",
      numLayers: 27,
      vocabSize: 102400,
      rmsNormEps: 1e-6,
    });
    expect(config).toMatchObject({ bosTokenId: 100000, eosTokenIds: [100001], tieWordEmbeddings: false });
    expect(config.attention).toEqual({
      heads: 16,
      qLoraRank: null,
      kvLoraRank: 512,
      qkNopeHeadDim: 128,
      qkRopeHeadDim: 64,
      vHeadDim: 128,
      latentNormEps: 1e-6,
      rotary: "interleaved",
      queryScaling: null,
    });
    expect(config.rope).toEqual({
      type: "yarn",
      theta: 10000,
      factor: 40,
      originalMaxPositions: 4096,
      betaFast: 32,
      betaSlow: 1,
      truncate: true,
      attentionFactor: null,
      mscale: published.mscale,
      mscaleAllDim: published.mscale,
    });
    expect(config.mlpLayers.slice(0, 3)).toEqual(["dense", "sparse", "sparse"]);
    expect(config.mlpLayers).toHaveLength(27);
    expect(config.experts).toMatchObject({ count: 64, perToken: 6, intermediateSize: 1408, sharedCount: 2 });
    expect(config.experts?.router).toMatchObject({
      scoring: "softmax",
      selection: "greedy",
      normalise: false,
    });
    expect(config.scaling).toEqual({ embedding: 1, residual: 1, logits: 1 });
  });

  it("deepseek_v2: group-limited router, weights scaled by 16", () => {
    const { attention, experts } = parseModelConfig(published.deepseekV2);
    expect(attention).toMatchObject({ heads: 128, qLoraRank: 1536 });
    const router = { scoring: "softmax", selection: "group-max", groups: 8, groupsPerToken: 3, scale: 16 };
    expect(experts?.router).toEqual({ ...router, correctionBias: false, normalise: false });
  });

  it("deepseek_v3: sigmoid router with correction bias and groups, three dense layers", () => {
    const { experts, mlpLayers } = parseModelConfig(published.deepseekV3);
    expect(mlpLayers.indexOf("sparse")).toBe(3);
    const router = { scoring: "sigmoid", selection: "group-top2", groups: 8, groupsPerToken: 4, scale: 2.5 };
    expect(experts?.router).toEqual({ ...router, correctionBias: true, normalise: true });
  });

  it("minicpm3: longrope, halves, scaling, tied embeddings and several ends", () => {
    const { attention, rope, scaling, ...config } = parseModelConfig(published.miniCpm3);
    expect(attention).toMatchObject({ vHeadDim: 64, rotary: "halves", kvLoraRank: 256, qkRopeHeadDim: 32 });
    expect(rope).toMatchObject({ type: "longrope", theta: 10000, factor: 1, originalMaxPositions: 32768 });
    expect(scaling.embedding).toBe(12);
    expect(scaling.residual).toBeCloseTo(1.4 / Math.sqrt(62), 12);
    expect(scaling.logits).toBe(0.1);
    expect(config).toMatchObject({ tieWordEmbeddings: true, eosTokenIds: [2, 73440], experts: null });
    expect(new Set(config.mlpLayers)).toEqual(new Set(["dense"]));
  });

  it("glm4_moe_lite: theta beside a null rope_scaling", () => {
    const { rope, experts, mlpLayers, attention } = parseModelConfig(published.glm47Flash);
    expect(rope).toEqual({ type: "default", theta: 1000000 });
    expect(mlpLayers.indexOf("sparse")).toBe(1);
    expect(attention).toMatchObject({ qkNopeHeadDim: 192, vHeadDim: 256, rotary: "interleaved" });
    expect(experts?.router).toMatchObject({
      scoring: "sigmoid",
      selection: "greedy",
      correctionBias: true,
      scale: 1.8,
    });
  });

  it("youtu: dense throughout", () => {
    const config = parseModelConfig(published.youtu);
    expect(config.experts).toBeNull();
    expect(config).toMatchObject({ tieWordEmbeddings: true, rope: { type: "default", theta: 1600000 } });
  });

  it("youtu: the padding token's embedding is zeros, unless the token has another use", () => {
    const zero = (fields: object) => parseModelConfig({ ...published.youtu, ...fields }).zeroEmbeddingId;
    expect([zero({}), zero({ pad_token_id: 0 })]).toEqual([null, 0]);
    expect([zero({ pad_token_id: 128001 }), zero({ pad_token_id: 128000 })]).toEqual([null, null]);
    expect(parseModelConfig({ ...published.miniCpm3, pad_token_id: 0 }).zeroEmbeddingId).toBeNull();
  });

  it("mistral4 inside text_config: query scaling, sparse from the first layer", () => {
    const config = parseModelConfig(published.mistral4);
    expect(config.modelType).toBe("mistral4");
    expect(config.attention.queryScaling).toEqual({ beta: 0.1, originalMaxPositions: 8192 });
    expect(config.rope).toMatchObject({
      type: "yarn",
      factor: 128,
      originalMaxPositions: 8192,
      mscaleAllDim: 1,
    });
    expect(config.mlpLayers[0]).toBe("sparse");
    expect(config.experts?.router).toMatchObject({
      scoring: "softmax",
      normalise: true,
      correctionBias: false,
    });
    expect(parseModelConfig(published.mistral4.text_config)).toEqual(config);
  });
});

describe("parseModelConfig, spellings", () => {
  it("reads rope_parameters as rope_scaling with rope_theta", () => {
    const { rope_scaling, rope_theta, ...rest } = published.deepseekV2Lite;
    const newer = { ...rest, rope_parameters: { ...rope_scaling, rope_type: "yarn", rope_theta } };
    expect(parseModelConfig(newer)).toEqual(parseModelConfig(published.deepseekV2Lite));
  });

  it("reads mlp_layer_types as first_k_dense_replace", () => {
    const types = Array.from({ length: 47 }, (_, layer) => (layer < 1 ? "dense" : "sparse"));
    const newer = { ...without(published.glm47Flash, "first_k_dense_replace"), mlp_layer_types: types };
    expect(parseModelConfig(newer)).toEqual(parseModelConfig(published.glm47Flash));
  });

  it("needs no expert fields when every layer is dense", () => {
    const dense = { ...published.deepseekV2Lite, n_routed_experts: null, num_experts_per_tok: null };
    expect(parseModelConfig(dense).experts).toBeNull();
    const first = { ...published.deepseekV2Lite, first_k_dense_replace: 27 };
    expect(parseModelConfig(first).experts).toBeNull();
  });

  it("takes halves from rope_interleave: false, but not for deepseek_v2", () => {
    expect(parseModelConfig({ ...published.youtu, rope_interleave: false }).attention.rotary).toBe("halves");
    const v2 = parseModelConfig({ ...published.deepseekV2, rope_interleave: false });
    expect(v2.attention.rotary).toBe("interleaved");
  });
});

describe("parseModelConfig, refusals", () => {
  const base = published.deepseekV3;
  const cases: [name: string, config: unknown, message: string | RegExp][] = [
    ["not an object", [1], "config.json: its content is an array of 1, expected an object."],
    [
      "unsupported type",
      { model_type: "llama" },
      'config.json: model_type is "llama", expected one of deepseek_v2, deepseek_v3, minicpm3, glm4_moe_lite, youtu, mistral4.',
    ],
    ["no type", {}, /model_type is missing, expected one of/],
    [
      "missing hidden_size",
      without(base, "hidden_size"),
      "config.json: hidden_size is missing, expected a multiple of 8 from 8 to 131072.",
    ],
    [
      "1e12 layers",
      { ...base, num_hidden_layers: 1e12 },
      "config.json: num_hidden_layers is 1000000000000, expected an integer from 1 to 1000.",
    ],
    ["negative vocabulary", { ...base, vocab_size: -1 }, /vocab_size is -1, expected an integer from 1/],
    ["fractional width", { ...base, hidden_size: 12.5 }, /hidden_size is 12.5, expected a multiple of 8/],
    ["no heads", { ...base, num_attention_heads: 0 }, /num_attention_heads is 0, expected an integer from 1/],
    ["text for a number", { ...base, vocab_size: "many" }, /vocab_size is "many", expected an integer/],
    [
      "latent rank 384",
      { ...base, kv_lora_rank: 384 },
      "config.json: kv_lora_rank is 384, expected 128 or 256 or 512.",
    ],
    [
      "a hidden size of 36",
      { ...base, hidden_size: 36 },
      /hidden_size is 36, expected a multiple of 8 from 8 to/,
    ],
    ["heads of 36", { ...base, qk_nope_head_dim: 36 }, /qk_nope_head_dim is 36, expected a multiple of 8/],
    ["values of 36", { ...base, v_head_dim: 36 }, /v_head_dim is 36, expected a multiple of 8/],
    ["queries of rank 36", { ...base, q_lora_rank: 36 }, /q_lora_rank is 36, expected a multiple of 8/],
    ["an MLP of 36", { ...base, intermediate_size: 36 }, /intermediate_size is 36, expected a multiple of 8/],
    ["experts of 36", { ...base, moe_intermediate_size: 36 }, /moe_intermediate_size is 36, expected a mult/],
    ["a vocabulary of two million", { ...base, vocab_size: 2 ** 21 }, /vocab_size .* from 1 to 1048576/],
    [
      "rotary width 48",
      { ...base, qk_rope_head_dim: 48 },
      "config.json: qk_rope_head_dim is 48, expected 32 or 64.",
    ],
    ["missing q_lora_rank", without(base, "q_lora_rank"), /q_lora_rank is missing/],
    ["missing v_head_dim", without(base, "v_head_dim"), /v_head_dim is missing, expected a multiple of 8/],
    [
      "257 of 256 experts",
      { ...base, num_experts_per_tok: 257 },
      /num_experts_per_tok is 257, expected an integer from 1 to 64/,
    ],
    [
      "9 of 8 experts",
      { ...base, n_routed_experts: 8, num_experts_per_tok: 9, n_group: 1, topk_group: 1 },
      /num_experts_per_tok is 9, expected at most n_routed_experts, which is 8/,
    ],
    [
      "groups that do not divide",
      { ...base, n_group: 7 },
      /n_group is 7, expected a divisor of n_routed_experts/,
    ],
    ["9 of 8 groups", { ...base, topk_group: 9 }, /topk_group is 9, expected at most n_group, which is 8/],
    [
      "groups too small",
      { ...base, topk_group: 1, n_group: 64 },
      /num_experts_per_tok is 8, expected at most the 4/,
    ],
    ["missing experts", without(base, "n_routed_experts"), /n_routed_experts is missing/],
    [
      "missing first_k_dense_replace",
      without(base, "first_k_dense_replace"),
      /first_k_dense_replace is missing/,
    ],
    ["another router", { ...base, topk_method: "hash" }, /topk_method is "hash", expected "noaux_tc"/],
    [
      "normalised deepseek_v2",
      { ...published.deepseekV2, norm_topk_prob: true },
      /norm_topk_prob is true, expected false/,
    ],
    [
      "grouped keys",
      { ...base, num_key_value_heads: 8 },
      /num_key_value_heads is 8, expected num_attention_heads/,
    ],
    ["gelu", { ...base, hidden_act: "gelu" }, /hidden_act is "gelu", expected "silu"/],
    ["biases", { ...base, attention_bias: true }, /attention_bias is true, expected false/],
    [
      "llama3 rope",
      { ...base, rope_scaling: { rope_type: "llama3", factor: 8 } },
      'config.json: rope_scaling.rope_type is "llama3", expected "default", "linear", "yarn" or "longrope".',
    ],
    [
      "rope factor",
      { ...base, rope_scaling: { type: "yarn", factor: -40 } },
      /rope_scaling.factor is -40, expected a number/,
    ],
    [
      "linear without factor",
      { ...base, rope_scaling: { type: "linear" } },
      /rope_scaling.factor is missing/,
    ],
    ["rope as text", { ...base, rope_scaling: "yarn" }, /rope_scaling is "yarn", expected an object/],
    [
      "short divisors",
      { ...published.miniCpm3, rope_scaling: { type: "longrope", short_factor: [1], long_factor: [1] } },
      /rope_scaling.short_factor is an array of 1, expected an array of 16/,
    ],
    ["half rotary", { ...base, partial_rotary_factor: 0.5 }, /partial_rotary_factor is 0.5, expected 1 or/],
    [
      "layer types too few",
      { ...base, mlp_layer_types: ["dense"] },
      /mlp_layer_types is an array of 1, expected one entry/,
    ],
    ["minicpm3 without scale_emb", without(published.miniCpm3, "scale_emb"), /scale_emb is missing/],
    [
      "mistral4 without rope",
      without(published.mistral4.text_config, "rope_parameters"),
      /rope_parameters is missing/,
    ],
    ["negative end", { ...base, eos_token_id: [1, -2] }, /eos_token_id.1 is -2, expected an integer from 0/],
    [
      "padding past the vocabulary",
      { ...published.youtu, pad_token_id: 128256 },
      /pad_token_id is 128256, expected less/,
    ],
    [
      "fp8 blocks",
      { ...base, quantization_config: { quant_method: "fp8", weight_block_size: [128, 128] } },
      /quantization_config says the weights are quantised \(fp8\), which is not supported yet/,
    ],
    [
      "fp8 blocks beside text_config",
      { ...published.mistral4, quantization_config: { quant_method: "fp8" } },
      /quantised \(fp8\)/,
    ],
  ];
  it.each(cases)("%s", (_, config, message) => {
    expect(() => parseModelConfig(config)).toThrow(UserError);
    expect(() => parseModelConfig(config)).toThrow(message);
  });
});
