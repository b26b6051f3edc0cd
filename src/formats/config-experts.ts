import type { ConfigFields, ExpertFields } from "./config-fields.ts";
import { badField, expertFields, parseFields } from "./config-fields.ts";
import type { ExpertsConfig, MlpKind, ModelType, RouterConfig } from "./config-types.ts";

/** Layers that are dense before the experts begin, where config.json does not say. */
const denseFirst: Partial<Record<ModelType, number>> = { glm4_moe_lite: 1, mistral4: 0 };

/**
 * Dense or sparse per layer, from `mlp_layer_types` or from `first_k_dense_replace` and `moe_layer_freq`. A model
 * without `n_routed_experts`, and every minicpm3 and youtu, is dense throughout.
 */
export function parseMlpLayers(modelType: ModelType, fields: ConfigFields): readonly MlpKind[] {
  const layers = fields.num_hidden_layers;
  if (modelType === "minicpm3" || modelType === "youtu" || fields.n_routed_experts === null) {
    return new Array<MlpKind>(layers).fill("dense");
  }
  const named = fields.mlp_layer_types;
  if (named?.length === layers) return named;
  if (named) throw badField("mlp_layer_types", named, `one entry for each of the ${layers} layers`);
  const first = fields.first_k_dense_replace ?? denseFirst[modelType];
  if (first === undefined) throw badField("first_k_dense_replace", undefined, "an integer");
  const every = fields.moe_layer_freq ?? 1;
  return Array.from({ length: layers }, (_, layer) =>
    layer >= first && layer % every === 0 ? "sparse" : "dense",
  );
}

function expect(field: string, value: unknown, expected: unknown): void {
  if (value == null || value === expected) return;
  throw badField(field, value, JSON.stringify(expected));
}

/** deepseek_v2: softmax, then the top experts overall or of the groups with the best single expert; never normalised. */
function parseSoftmaxRouter(fields: ExpertFields): Pick<RouterConfig, "selection" | "normalise"> {
  expect("scoring_func", fields.scoring_func, "softmax");
  // Implementations disagree on what true means for this type, and no published checkpoint has it.
  expect("norm_topk_prob", fields.norm_topk_prob, false);
  const method = fields.topk_method ?? "greedy";
  if (method === "greedy") return { selection: "greedy", normalise: false };
  if (method === "group_limited_greedy") return { selection: "group-max", normalise: false };
  throw badField("topk_method", method, '"greedy" or "group_limited_greedy"');
}

function parseRouter(modelType: ModelType, fields: ExpertFields): RouterConfig {
  const groups = fields.n_group ?? 1;
  const groupsPerToken = fields.topk_group ?? groups;
  const common = { groups, groupsPerToken, scale: fields.routed_scaling_factor ?? 1 };
  const greedy = groups === groupsPerToken;
  if (modelType === "deepseek_v2") {
    const { selection, normalise } = parseSoftmaxRouter(fields);
    const chosen = greedy ? "greedy" : selection;
    return { ...common, scoring: "softmax", selection: chosen, correctionBias: false, normalise };
  }
  const selection = greedy ? "greedy" : "group-top2";
  const normalise = fields.norm_topk_prob ?? true;
  if (modelType === "mistral4") {
    return { ...common, scoring: "softmax", selection, correctionBias: false, normalise };
  }
  expect("scoring_func", fields.scoring_func, "sigmoid");
  expect("topk_method", fields.topk_method, "noaux_tc");
  return { ...common, scoring: "sigmoid", selection, correctionBias: true, normalise };
}

function checkCounts(fields: ExpertFields, router: RouterConfig): void {
  const { n_routed_experts: count, num_experts_per_tok: perToken } = fields;
  const { groups, groupsPerToken, selection } = router;
  if (perToken > count) {
    throw badField("num_experts_per_tok", perToken, `at most n_routed_experts, which is ${count}`);
  }
  if (count % groups !== 0)
    throw badField("n_group", groups, `a divisor of n_routed_experts, which is ${count}`);
  if (groupsPerToken > groups)
    throw badField("topk_group", groupsPerToken, `at most n_group, which is ${groups}`);
  const size = count / groups;
  if (selection === "greedy") return;
  if (size < 2) throw badField("n_group", groups, `at most half of n_routed_experts, which is ${count}`);
  if (perToken > groupsPerToken * size) {
    const expected = `at most the ${groupsPerToken * size} experts of topk_group groups`;
    throw badField("num_experts_per_tok", perToken, expected);
  }
}

/** The experts of a config with sparse layers. Throws UserError naming the field that is missing or absurd. */
export function parseExperts(modelType: ModelType, config: unknown): ExpertsConfig {
  const fields = parseFields(expertFields, config);
  const router = parseRouter(modelType, fields);
  checkCounts(fields, router);
  const sharedCount = fields.n_shared_experts ?? 0;
  return {
    count: fields.n_routed_experts,
    perToken: fields.num_experts_per_tok,
    intermediateSize: fields.moe_intermediate_size,
    sharedCount,
    router,
  };
}
