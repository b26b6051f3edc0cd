import type { Architecture } from "./architecture.ts";
import { denseDecoder, routedExperts } from "./names.ts";

/** DeepSeek-V3 and R1: sigmoid-routed experts, chosen with a learned correction bias. */
export const deepseekV3: Architecture = {
  modelType: "deepseek_v3",
  names: { ...denseDecoder, sparse: routedExperts },
};
