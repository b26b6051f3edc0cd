import { type CacheDType, cacheEntryBytes } from "../cache/latent-cache-pool.ts";
import type { DeviceLimits } from "../device/device.ts";
import type { ModelConfig } from "../formats/config-types.ts";

/** Tokens of a page of the cache. */
export const PAGE_SIZE = 64;

/** What caching one token costs, and what it would cost with every head's keys and values in the same format. */
export interface CacheFootprint {
  readonly dtype: CacheDType;
  readonly bytesPerTokenAndLayer: number;
  readonly bytesPerToken: number;
  /** heads · (d_n + d_r + d_v) elements a layer; of 2 bytes for an fp8 cache, which has no such form. */
  readonly fullHeadsBytesPerToken: number;
  readonly timesSmaller: number;
}

/** The bytes of one token in the cache of `config`, beside those of full multi-head caching. */
export function cacheFootprint(config: ModelConfig, dtype: CacheDType): CacheFootprint {
  const { heads, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = config.attention;
  const bytesPerTokenAndLayer = cacheEntryBytes({ dtype, kvLoraRank, qkRopeHeadDim });
  const bytesPerToken = bytesPerTokenAndLayer * config.numLayers;
  const elements = heads * (qkNopeHeadDim + qkRopeHeadDim + vHeadDim) * config.numLayers;
  const fullHeadsBytesPerToken = elements * (dtype === "f32" ? 4 : 2);
  const timesSmaller = fullHeadsBytesPerToken / bytesPerToken;
  return { dtype, bytesPerTokenAndLayer, bytesPerToken, fullHeadsBytesPerToken, timesSmaller };
}

/**
 * Tokens that one cache can hold on a device with these limits, whatever its memory: on WebGPU the cache is one buffer, and a layer of it
 * one binding. Whole pages.
 */
export function mostCacheTokens({ webgpu }: DeviceLimits, config: ModelConfig, dtype: CacheDType): number {
  if (webgpu === undefined) return Number.POSITIVE_INFINITY;
  const { bytesPerToken, bytesPerTokenAndLayer } = cacheFootprint(config, dtype);
  const tokens = Math.min(webgpu.bindingBytes / bytesPerTokenAndLayer, webgpu.bufferBytes / bytesPerToken);
  return Math.floor(tokens / PAGE_SIZE) * PAGE_SIZE;
}
