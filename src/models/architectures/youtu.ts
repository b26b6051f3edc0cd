import type { Architecture } from "./architecture.ts";
import { denseDecoder } from "./names.ts";

/** Youtu-LLM: dense layers and tied embeddings. */
export const youtu: Architecture = {
  modelType: "youtu",
  names: denseDecoder,
};
