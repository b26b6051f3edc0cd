import type { Architecture } from "./architecture.ts";
import { denseDecoder } from "./names.ts";

/** MiniCPM3: dense layers, rotary halves, scaled embeddings, branches and logits. */
export const minicpm3: Architecture = {
  modelType: "minicpm3",
  names: denseDecoder,
};
