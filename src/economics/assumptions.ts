import type { Load } from "./load.ts";
import type { Deployment, Efficiency } from "./roofline.ts";

/** Shares of the published peaks; one H200 reached 89 % and 79 % of its own in plain copies and products. */
const share: Efficiency = { memory: 0.8, compute: 0.6 };

/** What kernels are assumed to reach until a bench file says better. */
export const assumedEfficiency: Deployment["efficiency"] = { attention: share, weights: share };

/** Launches, sampling and scheduling of a recorded step, in seconds. */
export const STEP_OVERHEAD_SECONDS = 3e-4;

/** The load that is planned for when none is told. */
export const defaultLoad: Load = {
  ...{ requestsPerSecond: 10, promptTokens: 1024, outputTokens: 256 },
  ...{ tokenLatencyMs: 50, firstTokenLatencyMs: 1000, utilisation: 0.8 },
};
