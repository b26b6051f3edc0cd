import type { ConfigFields, RopeFields } from "./config-fields.ts";
import { badField } from "./config-fields.ts";
import type { AttentionConfig, ModelType, RopeConfig } from "./config-types.ts";

interface Found {
  /** Which of the two spellings config.json uses. */
  readonly field: "rope_parameters" | "rope_scaling";
  readonly values: RopeFields;
}

function findRope(fields: ConfigFields): Found {
  if (fields.rope_parameters) return { field: "rope_parameters", values: fields.rope_parameters };
  return { field: "rope_scaling", values: fields.rope_scaling ?? {} };
}

function originalMaxPositions(fields: ConfigFields, values: RopeFields): number {
  return (
    fields.original_max_position_embeddings ??
    values.original_max_position_embeddings ??
    fields.max_position_embeddings
  );
}

/** Frequencies of the `qk_rope_head_dim` channels only: a factor that says otherwise is another model. */
function checkPartialRotary(fields: ConfigFields, values: RopeFields): void {
  const partial = values.partial_rotary_factor ?? fields.partial_rotary_factor ?? 1;
  const rotary = fields.qk_rope_head_dim;
  const ofHead = rotary / (fields.qk_nope_head_dim + rotary);
  if (partial === 1 || Math.abs(partial - ofHead) < 1e-6) return;
  throw badField("partial_rotary_factor", partial, `1 or qk_rope_head_dim's share of the head, ${ofHead}`);
}

function divisorsOf(
  name: string,
  list: readonly number[] | null | undefined,
  length: number,
): readonly number[] {
  if (list?.length === length) return list;
  throw badField(name, list ?? undefined, `an array of ${length} (qk_rope_head_dim / 2)`);
}

/**
 * The rotary part of a config, from `rope_parameters` or from `rope_scaling` and `rope_theta`. Throws UserError for a
 * type other than default, linear, yarn and longrope ("su" is its older name), and for parts that are missing.
 */
export function parseRope(fields: ConfigFields): RopeConfig {
  const { field, values } = findRope(fields);
  checkPartialRotary(fields, values);
  const theta = values.rope_theta ?? fields.rope_theta ?? 10_000;
  const type = values.rope_type ?? values.type ?? "default";
  const original = originalMaxPositions(fields, values);
  const factor = values.factor ?? fields.max_position_embeddings / original;
  const mscaleAllDim = values.mscale_all_dim || null;
  const attentionFactor = values.attention_factor ?? null;
  switch (type) {
    case "default":
      return { type, theta };
    case "linear":
      if (values.factor == null) throw badField(`${field}.factor`, undefined, "a number");
      return { type, theta, factor, mscaleAllDim };
    case "yarn":
      return {
        type,
        theta,
        factor,
        originalMaxPositions: original,
        betaFast: values.beta_fast ?? 32,
        betaSlow: values.beta_slow ?? 1,
        truncate: values.truncate ?? true,
        attentionFactor,
        mscale: values.mscale || null,
        mscaleAllDim,
      };
    case "longrope":
    case "su": {
      const half = fields.qk_rope_head_dim / 2;
      const shortFactor = divisorsOf(`${field}.short_factor`, values.short_factor, half);
      const longFactor = divisorsOf(`${field}.long_factor`, values.long_factor, half);
      const common = { theta, factor, originalMaxPositions: original, attentionFactor, mscaleAllDim };
      return { type: "longrope", ...common, shortFactor, longFactor };
    }
  }
  throw badField(`${field}.rope_type`, type, '"default", "linear", "yarn" or "longrope"');
}

/** Mistral 4's position-dependent query scale; null for the other types and for a beta of 0. */
export function parseQueryScaling(
  modelType: ModelType,
  fields: ConfigFields,
): AttentionConfig["queryScaling"] {
  const { values } = findRope(fields);
  const beta = values.llama_4_scaling_beta;
  if (modelType !== "mistral4" || !beta) return null;
  return { beta, originalMaxPositions: originalMaxPositions(fields, values) };
}
