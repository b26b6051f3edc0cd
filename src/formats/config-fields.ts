import { z } from "zod";
import { describeValue } from "../base/checks.ts";
import { UserError } from "../base/errors.ts";

function integer(min: number, max: number) {
  const error = `an integer from ${min} to ${max}`;
  return z.int({ error }).min(min, { error }).max(max, { error });
}

function number(min: number, max: number) {
  const error = `a number from ${min} to ${max}`;
  return z.number({ error }).min(min, { error }).max(max, { error });
}

function oneOf<const Choices extends readonly [number, ...number[]]>(choices: Choices) {
  return z.literal([...choices], { error: choices.join(" or ") });
}

const flag = z.boolean({ error: "true or false" });
const text = z.string({ error: "a string" });
const maxPositions = 2 ** 27;
const positions = integer(1, maxPositions);
const tokenId = integer(0, 2 ** 24);
const divisors = z.array(number(1e-3, 1e6), { error: "an array of numbers" });

/** `rope_scaling` and `rope_parameters`, whose fields are the same but for where theta stands. */
export const ropeFields = z.looseObject(
  {
    rope_type: text.nullish(),
    type: text.nullish(),
    rope_theta: number(1, 1e12).nullish(),
    factor: number(1e-3, 1e6).nullish(),
    original_max_position_embeddings: positions.nullish(),
    beta_fast: number(1e-3, 1e6).nullish(),
    beta_slow: number(1e-3, 1e6).nullish(),
    truncate: flag.nullish(),
    attention_factor: number(1e-3, 1e3).nullish(),
    mscale: number(0, 1e3).nullish(),
    mscale_all_dim: number(0, 1e3).nullish(),
    short_factor: divisors.nullish(),
    long_factor: divisors.nullish(),
    llama_4_scaling_beta: number(0, 1e3).nullish(),
    partial_rotary_factor: number(1e-3, 1).nullish(),
  },
  { error: "an object" },
);

/** What config.json holds for the six types. A field that some type may leave out is optional here. */
export const configFields = z.looseObject(
  {
    vocab_size: integer(1, 2 ** 24),
    hidden_size: integer(1, 2 ** 17),
    intermediate_size: integer(1, 2 ** 20),
    num_hidden_layers: integer(1, 1000),
    num_attention_heads: integer(1, 1024),
    num_key_value_heads: integer(1, 1024).nullish(),
    hidden_act: text.nullish(),
    max_position_embeddings: positions,
    original_max_position_embeddings: positions.nullish(),
    rms_norm_eps: number(1e-12, 1),
    tie_word_embeddings: flag.nullish(),
    bos_token_id: tokenId.nullish(),
    eos_token_id: z.union([tokenId, z.array(tokenId)], { error: "a token id or an array of them" }).nullish(),
    pad_token_id: tokenId.nullish(),
    attention_bias: flag.nullish(),
    mlp_bias: flag.nullish(),
    q_lora_rank: integer(1, 2 ** 16).nullable(),
    kv_lora_rank: oneOf([128, 256, 512]),
    qk_nope_head_dim: integer(1, 1024),
    qk_rope_head_dim: oneOf([32, 64]),
    v_head_dim: integer(1, 1024).nullish(),
    rope_interleave: flag.nullish(),
    rope_theta: number(1, 1e12).nullish(),
    rope_scaling: ropeFields.nullish(),
    rope_parameters: ropeFields.nullish(),
    partial_rotary_factor: number(1e-3, 1).nullish(),
    first_k_dense_replace: integer(0, 1000).nullish(),
    moe_layer_freq: integer(1, 1000).nullish(),
    mlp_layer_types: z
      .array(z.enum(["dense", "sparse"]), { error: 'an array of "dense" and "sparse"' })
      .nullish(),
    scale_emb: number(1e-6, 1e6).nullish(),
    scale_depth: number(1e-6, 1e6).nullish(),
    dim_model_base: number(1, 2 ** 17).nullish(),
  },
  { error: "an object" },
);

/** What config.json holds beside {@link configFields} when a layer is sparse. */
export const expertFields = z.looseObject({
  n_routed_experts: integer(1, 4096),
  num_experts_per_tok: integer(1, 64),
  moe_intermediate_size: integer(1, 2 ** 20),
  n_shared_experts: integer(0, 64).nullish(),
  n_group: integer(1, 4096).nullish(),
  topk_group: integer(1, 4096).nullish(),
  topk_method: text.nullish(),
  scoring_func: text.nullish(),
  norm_topk_prob: flag.nullish(),
  routed_scaling_factor: number(1e-6, 1e6).nullish(),
});

export type ConfigFields = z.infer<typeof configFields>;
export type RopeFields = z.infer<typeof ropeFields>;
export type ExpertFields = z.infer<typeof expertFields>;

/** The one sentence about a field of config.json: what it is, what was expected. */
export function badField(field: string, value: unknown, expected: string): UserError {
  const what = value === undefined ? "is missing" : `is ${describeValue(value)}`;
  return new UserError(`config.json: ${field} ${what}, expected ${expected}.`);
}

/** `value` as `schema` reads it. Throws UserError with {@link badField}'s sentence for the first field that is wrong. */
export function parseFields<Schema extends z.ZodType>(schema: Schema, value: unknown): z.infer<Schema> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0]!;
  let found: unknown = value;
  for (const key of path) found = (found as Record<PropertyKey, unknown>)[key];
  throw badField(path.map(String).join("."), found, message);
}
