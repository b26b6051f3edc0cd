import { checkInteger } from "../base/checks.ts";
import { type CacheDType, cacheEntryBytes } from "../cache/latent-cache-pool.ts";
import type { PlanModel } from "./plan-model.ts";

/**
 * How keys and values are kept: as latents; of groups of heads (8 heads a group, as grouped-query models have it); of
 * every head. Full and grouped caches keep their elements in 2 bytes beside an fp8 latent cache, which they have no form of.
 */
export const cacheForms = ["latent", "grouped", "full"] as const;

/** One of {@link cacheForms}. */
export type CacheForm = (typeof cacheForms)[number];

/** Names for people. */
export const cacheFormNames: Readonly<Record<CacheForm, string>> = {
  latent: "latent",
  grouped: "grouped-query",
  full: "full multi-head",
};

/** Query heads that share one head of keys and values in a grouped-query cache. */
export const HEADS_A_GROUP = 8;

/** Heads of keys and values that a grouped or full cache keeps. */
export function keyValueHeads({ attention }: PlanModel, form: "grouped" | "full"): number {
  return form === "full" ? attention.heads : Math.ceil(attention.heads / HEADS_A_GROUP);
}

/** Bytes of one token over all layers: the latent entry, or kv heads · (d_n + d_r + d_v) elements a layer. */
export function cacheBytesPerToken(model: PlanModel, form: CacheForm, dtype: CacheDType): number {
  const { kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = model.attention;
  if (form === "latent") return model.layers * cacheEntryBytes({ dtype, kvLoraRank, qkRopeHeadDim });
  const elements = keyValueHeads(model, form) * (qkNopeHeadDim + qkRopeHeadDim + vHeadDim);
  return model.layers * elements * (dtype === "f32" ? 4 : 2);
}

/**
 * How many ways tensor parallelism over `gpus` GPUs divides a cache: heads are divided, so a full cache goes `gpus` ways and
 * a grouped one as many as it has heads; the latent is shared by all heads, so every GPU holds it whole.
 */
export function cacheShards(model: PlanModel, form: CacheForm, gpus: number): number {
  checkInteger("gpus", gpus, { min: 1 });
  return form === "latent" ? 1 : Math.min(gpus, keyValueHeads(model, form));
}

/**
 * Attention FLOPs of one new token per cached token, over all layers: 2·h·(2·d_c + d_r) absorbed over the latent cache,
 * 2·h·(d_n + d_r + d_v) over heads.
 */
export function decodeFlopsPerCachedToken({ attention, layers }: PlanModel, form: CacheForm): number {
  const { heads, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = attention;
  const width = form === "latent" ? 2 * kvLoraRank + qkRopeHeadDim : qkNopeHeadDim + qkRopeHeadDim + vHeadDim;
  return 2 * heads * width * layers;
}
