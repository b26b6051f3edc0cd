import * as z from "zod/mini";
import { describeValue } from "../base/checks.ts";
import { UserError } from "../base/errors.ts";

function integer(min: number, max: number) {
  const error = `an integer from ${min} to ${max}`;
  return z.int({ error }).check(z.minimum(min, { error }), z.maximum(max, { error }));
}

/** A width that the kernels read eight values of at a time. */
function eights(max: number) {
  const error = `a multiple of 8 from 8 to ${max}`;
  return z
    .int({ error })
    .check(z.minimum(8, { error }), z.maximum(max, { error }), z.multipleOf(8, { error }));
}

function number(min: number, max: number) {
  const error = `a number from ${min} to ${max}`;
  return z.number({ error }).check(z.minimum(min, { error }), z.maximum(max, { error }));
}

function oneOf<const Choices extends readonly [number, ...number[]]>(choices: Choices) {
  return z.literal([...choices], { error: choices.join(" or ") });
}

/** null counts as left out, as in transformers. */
const optional = z.nullish;
const flag = z.boolean({ error: "true or false" });
const text = z.string({ error: "a string" });
const maxPositions = 2 ** 27;
const positions = integer(1, maxPositions);
const tokenId = integer(0, 2 ** 24);
const divisors = z.array(number(1e-3, 1e6), { error: "an array of numbers" });

/** `rope_scaling` and `rope_parameters`, whose fields are the same but for where theta stands. */
export const ropeFields = z.looseObject(
  {
    rope_type: optional(text),
    type: optional(text),
    rope_theta: optional(number(1, 1e12)),
    factor: optional(number(1e-3, 1e6)),
    original_max_position_embeddings: optional(positions),
    beta_fast: optional(number(1e-3, 1e6)),
    beta_slow: optional(number(1e-3, 1e6)),
    truncate: optional(flag),
    attention_factor: optional(number(1e-3, 1e3)),
    mscale: optional(number(0, 1e3)),
    mscale_all_dim: optional(number(0, 1e3)),
    short_factor: optional(divisors),
    long_factor: optional(divisors),
    llama_4_scaling_beta: optional(number(0, 1e3)),
    partial_rotary_factor: optional(number(1e-3, 1)),
  },
  { error: "an object" },
);

/** What config.json holds for the six types. A field that some type may leave out is optional here. */
export const configFields = z.looseObject(
  {
    vocab_size: integer(1, 2 ** 20),
    hidden_size: eights(2 ** 17),
    intermediate_size: eights(2 ** 20),
    num_hidden_layers: integer(1, 1000),
    num_attention_heads: integer(1, 1024),
    num_key_value_heads: optional(integer(1, 1024)),
    hidden_act: optional(text),
    max_position_embeddings: positions,
    original_max_position_embeddings: optional(positions),
    rms_norm_eps: number(1e-12, 1),
    tie_word_embeddings: optional(flag),
    bos_token_id: optional(tokenId),
    eos_token_id: optional(z.union([tokenId, z.array(tokenId)], { error: "a token id or an array of them" })),
    pad_token_id: optional(tokenId),
    attention_bias: optional(flag),
    mlp_bias: optional(flag),
    q_lora_rank: z.nullable(eights(2 ** 16)),
    kv_lora_rank: oneOf([128, 256, 512]),
    qk_nope_head_dim: eights(1024),
    qk_rope_head_dim: oneOf([32, 64]),
    v_head_dim: optional(eights(1024)),
    rope_interleave: optional(flag),
    rope_theta: optional(number(1, 1e12)),
    rope_scaling: optional(ropeFields),
    rope_parameters: optional(ropeFields),
    partial_rotary_factor: optional(number(1e-3, 1)),
    first_k_dense_replace: optional(integer(0, 1000)),
    moe_layer_freq: optional(integer(1, 1000)),
    mlp_layer_types: optional(
      z.array(z.enum(["dense", "sparse"]), { error: 'an array of "dense" and "sparse"' }),
    ),
    scale_emb: optional(number(1e-6, 1e6)),
    scale_depth: optional(number(1e-6, 1e6)),
    dim_model_base: optional(number(1, 2 ** 17)),
  },
  { error: "an object" },
);

/** What config.json holds beside {@link configFields} when a layer is sparse. */
export const expertFields = z.looseObject({
  n_routed_experts: integer(1, 4096),
  num_experts_per_tok: integer(1, 64),
  moe_intermediate_size: eights(2 ** 20),
  n_shared_experts: optional(integer(0, 64)),
  n_group: optional(integer(1, 4096)),
  topk_group: optional(integer(1, 4096)),
  topk_method: optional(text),
  scoring_func: optional(text),
  norm_topk_prob: optional(flag),
  routed_scaling_factor: optional(number(1e-6, 1e6)),
});

/** The fields of config.json that are read, checked. */
export type ConfigFields = z.infer<typeof configFields>;
/** Those of `rope_scaling` or `rope_parameters`. */
export type RopeFields = z.infer<typeof ropeFields>;
/** Those of a mixture of experts. */
export type ExpertFields = z.infer<typeof expertFields>;

/** The one sentence about a field of config.json: what it is, what was expected. */
export function badField(field: string, value: unknown, expected: string): UserError {
  const what = value === undefined ? "is missing" : `is ${describeValue(value)}`;
  return new UserError(`config.json: ${field} ${what}, expected ${expected}.`);
}

/** `value` as `schema` reads it. Throws UserError with {@link badField}'s sentence for the first field that is wrong. */
export function parseFields<Schema extends z.ZodMiniType>(schema: Schema, value: unknown): z.infer<Schema> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0]!;
  let found: unknown = value;
  for (const key of path) found = (found as Record<PropertyKey, unknown>)[key];
  throw badField(path.map(String).join("."), found, message);
}
