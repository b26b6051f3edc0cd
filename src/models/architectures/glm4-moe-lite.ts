import type { Architecture } from "./architecture.ts";
import { denseDecoder, routedExperts } from "./names.ts";

/** GLM-4.7-Flash: DeepSeek-V3's layers without groups, and values wider than keys. */
export const glm4MoeLite: Architecture = {
  modelType: "glm4_moe_lite",
  names: { ...denseDecoder, sparse: routedExperts },
};
