import { cacheBytesPerToken, cacheShards } from "./cache-forms.ts";
import { type PlanModel, totalWeights } from "./plan-model.ts";
import { type Deployment, weightBytesEach } from "./roofline.ts";

/** What fits the memory of one copy of a model. Bytes are of each of its GPUs. */
export interface Capacity {
  readonly memoryBytes: number;
  readonly weightBytes: number;
  /** What is left for the cache; negative when the weights do not fit. */
  readonly cacheBytes: number;
  /** Cache bytes of one token, over all layers, on each GPU. */
  readonly bytesPerToken: number;
  /** Cached tokens over all sequences. */
  readonly tokens: number;
}

/** Share of a GPU's memory that a server may fill; the rest is the driver's, activations and fragmentation. */
export const MEMORY_SHARE = 0.9;

/** The memory of each GPU: 90 % of its own, less weights / t; the cache is divided where its form can be. */
export function capacityOf(model: PlanModel, deployment: Deployment): Capacity {
  const { gpu, form, cacheDtype, tensorParallel } = deployment;
  const memoryBytes = gpu.memoryGB * 1e9 * MEMORY_SHARE;
  const weightBytes = (totalWeights(model) * weightBytesEach(deployment)) / tensorParallel;
  const bytesPerToken =
    cacheBytesPerToken(model, form, cacheDtype) / cacheShards(model, form, tensorParallel);
  const cacheBytes = memoryBytes - weightBytes;
  return {
    ...{ memoryBytes, weightBytes, cacheBytes, bytesPerToken },
    tokens: Math.max(0, Math.floor(cacheBytes / bytesPerToken)),
  };
}
