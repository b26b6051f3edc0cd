import type { Architecture } from "./architecture.ts";
import { denseDecoder, routedExperts } from "./names.ts";

/** Mistral Small 4: softmax-routed experts in one tensor, scaled queries, often inside a multimodal checkpoint. */
export const mistral4: Architecture = {
  modelType: "mistral4",
  names: {
    ...denseDecoder,
    prefixes: ["model.", "model.language_model.", "language_model.model."],
    head: ["lm_head.weight", "language_model.lm_head.weight"],
    sparse: routedExperts,
  },
};
