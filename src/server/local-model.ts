import { basename, resolve } from "node:path";
import { UserError } from "../base/errors.ts";
import type { CacheDType } from "../cache/latent-cache-pool.ts";
import type { Device } from "../device/device.ts";
import { cacheFootprint, mostCacheTokens, PAGE_SIZE } from "../engine/cache-footprint.ts";
import { Engine } from "../engine/engine.ts";
import type { EngineOptions } from "../engine/engine-types.ts";
import { openLanguageModel } from "../engine/language-model.ts";
import { openCheckpoint } from "../formats/checkpoint.ts";
import type { ModelConfig } from "../formats/config-types.ts";
import { readGenerationDefaults, readModelConfig } from "../formats/model-folder.ts";
import { weightBytesOf } from "../models/model.ts";
import type { LoadProgress } from "../models/weight-source.ts";
import { openTokenizer } from "../text/open-tokenizer.ts";
import { fitsVocabulary } from "../text/tokenizer.ts";
import { Grammars } from "./grammar/grammars.ts";
import { createMetrics, type Metrics } from "./metrics.ts";
import type { ServedModel } from "./served-model.ts";

type EngineLimits = Pick<EngineOptions, "maxRunning" | "maxWaiting" | "draftTokens" | "prefixReuse">;

/** How a folder becomes a model that answers. */
export interface LocalModelOptions extends EngineLimits {
  readonly device: Device;
  /** Opens another device after `device` was lost; its owner is who gave it. Without it the loss of the device ends all requests. */
  readonly reopenDevice?: (() => Promise<Device>) | undefined;
  /** What clients call it; the folder's name. */
  readonly name?: string | undefined;
  readonly cacheDtype?: CacheDType | undefined;
  /** Tokens of the longest sequence, prompt and output; what the model was made for, at most 8192. */
  readonly maxContext?: number | undefined;
  /** Tokens in the cache; what every running sequence could fill, or as much as half the free memory or 1 GiB holds. */
  readonly cacheTokens?: number | undefined;
  /** As of `openLanguageModel`. */
  readonly exact?: boolean | undefined;
  readonly onNote?: ((sentence: string) => void) | undefined;
  readonly onProgress?: LoadProgress | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A model of a folder, ready to answer. */
export interface LocalModel extends ServedModel {
  readonly metrics: Metrics;
  readonly engine: Engine;
  readonly weightBytes: number;
  /** Tokens that fit the cache. */
  readonly cacheTokens: number;
  /** Ends what runs and gives the memory back; the device stays open. */
  close(): Promise<void>;
}

const RUNNING = 64;
const CACHE_BYTES = 2 ** 30;

async function readWeightBytes(folder: string, config: ModelConfig): Promise<number> {
  const store = await openCheckpoint(folder);
  try {
    return weightBytesOf(store, config);
  } finally {
    await store.close();
  }
}

/** Tokens of a cache as large as is of use, but no larger than the device's memory suggests. */
function chooseCacheTokens(
  { device, maxRunning = RUNNING, cacheDtype = "bf16" }: LocalModelOptions,
  config: ModelConfig,
  maxContext: number,
  weightBytes: number,
): number {
  const { bytesPerToken } = cacheFootprint(config, cacheDtype);
  const free = device.limits.memoryBytes - device.memory.usedBytes - weightBytes;
  const affordable = Math.floor(Math.min(CACHE_BYTES, free / 2) / bytesPerToken / PAGE_SIZE) * PAGE_SIZE;
  const most = mostCacheTokens(device.limits, config, cacheDtype);
  return Math.max(maxContext, Math.min(maxRunning * maxContext, affordable, most));
}

/**
 * Opens the model in `folder` on a device, with its tokenizer, an engine and metrics. Rejects with a UserError for a
 * folder that holds no model that can be run, and for one that does not fit the device.
 */
export async function openLocalModel(folder: string, options: LocalModelOptions): Promise<LocalModel> {
  const { device, cacheDtype, maxRunning = RUNNING, onProgress, signal } = options;
  const config = await readModelConfig(folder);
  const maxContext = options.maxContext ?? Math.min(config.maxPositionEmbeddings, 8192);
  if (maxContext > config.maxPositionEmbeddings) {
    throw new UserError(
      `This model's context is ${config.maxPositionEmbeddings} tokens; ${maxContext} were asked for.`,
    );
  }
  const defaults = await readGenerationDefaults(folder, config);
  const tokenizer = await openTokenizer(folder);
  fitsVocabulary(tokenizer, config.vocabSize);
  const weightBytes = await readWeightBytes(folder, config);
  const cacheTokens = options.cacheTokens ?? chooseCacheTokens(options, config, maxContext, weightBytes);
  const modelOptions = {
    ...{ config, cacheDtype, maxContext, cacheTokens, onProgress, signal },
    ...{ exact: options.exact, onNote: options.onNote },
    maxDecodeRows: maxRunning,
    tokenizerVocab: tokenizer.vocabSize,
  };
  let model = await openLanguageModel(folder, { ...modelOptions, device });
  const { reopenDevice } = options;
  const reopen = async () => {
    model = await openLanguageModel(folder, { ...modelOptions, device: await reopenDevice!() });
    return model.runner;
  };
  const name = options.name ?? basename(resolve(folder));
  const metrics = createMetrics(name);
  const { maxWaiting, draftTokens, prefixReuse } = options;
  const engine = new Engine({
    ...{ runner: model.runner, tokenizer, eosTokenIds: defaults.eosTokenIds, observer: metrics.observer },
    ...{ maxRunning, maxWaiting, draftTokens, prefixReuse },
    reopen: reopenDevice === undefined ? undefined : reopen,
  });
  metrics.watch(engine);
  return {
    ...{ name, engine, tokenizer, defaults, metrics, weightBytes, cacheTokens },
    created: Math.floor(Date.now() / 1000),
    grammars: new Grammars(tokenizer, defaults.eosTokenIds),
    close: async () => {
      await engine.close();
      model.close();
    },
  };
}
