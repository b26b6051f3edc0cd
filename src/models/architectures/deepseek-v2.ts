import type { Architecture } from "./architecture.ts";
import { denseDecoder, routedExperts } from "./names.ts";

/** DeepSeek-V2 and V2-Lite: dense layers first, then softmax-routed experts and shared ones. */
export const deepseekV2: Architecture = {
  modelType: "deepseek_v2",
  names: { ...denseDecoder, sparse: routedExperts },
};
