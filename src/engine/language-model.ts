import { checkInteger } from "../base/checks.ts";
import { UserError } from "../base/errors.ts";
import { fp8Entry } from "../base/fp8-entry.ts";
import { ceilDivide } from "../base/integers.ts";
import type { CacheDType } from "../cache/latent-cache-pool.ts";
import type { Device } from "../device/device.ts";
import { type FolderLocation, openFolder } from "../files/byte-folder.ts";
import { openCheckpoint } from "../formats/checkpoint.ts";
import type { ModelConfig } from "../formats/config-types.ts";
import { readModelConfig } from "../formats/model-folder.ts";
import type { TensorStore } from "../formats/safetensors.ts";
import { type Model, reserveModel, weightBytesOf } from "../models/model.ts";
import type { LoadProgress } from "../models/weight-source.ts";
import { PAGE_SIZE } from "./cache-footprint.ts";
import { checkFits } from "./check-fits.ts";
import { chooseExactness } from "./exactness.ts";
import { ModelRunner } from "./model-runner.ts";

/** How a checkpoint is opened. */
export interface OpenLanguageModelOptions {
  readonly device: Device;
  /** The folder's config, where it was read before. */
  readonly config?: ModelConfig | undefined;
  /** How the cache is stored; default: bf16. */
  readonly cacheDtype?: CacheDType | undefined;
  /** Tokens of the longest sequence, prompt and output; default: what the model was made for, at most 8192. */
  readonly maxContext?: number | undefined;
  /** Tokens in the cache over all sequences; default: `maxContext`. */
  readonly cacheTokens?: number | undefined;
  /** Sequences that decode in one step; default: 1. */
  readonly maxDecodeRows?: number | undefined;
  /** Prompt tokens of one step; default: 512. */
  readonly maxChunkTokens?: number | undefined;
  /** Size of the tokenizer's vocabulary: ids from there on are padding and never drawn. */
  readonly tokenizerVocab?: number | undefined;
  /**
   * Keeps activations in float32 everywhere. Default: where CUDA multiplies more than 16 rows with bf16 weights, it rounds the
   * activations of models of hidden size 1024 and up to bf16, many times faster, where cuBLASLt is there; false insists on that.
   */
  readonly exact?: boolean | undefined;
  /** Told in a sentence when prompts are slower than they could be, and why. */
  readonly onNote?: ((sentence: string) => void) | undefined;
  readonly onProgress?: LoadProgress | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A loaded checkpoint with its runner, whose pages are one owner's: an `Engine`'s, or that of who calls the runner. */
export interface LanguageModel {
  readonly config: ModelConfig;
  readonly device: Device;
  readonly runner: ModelRunner;
  readonly maxContext: number;
  readonly weightBytes: number;
  /** Gives the memory back; the device stays open. */
  close(): void;
}

function checkCacheDtype({ attention }: ModelConfig, dtype: CacheDType): void {
  if (dtype !== "fp8" || attention.kvLoraRank % fp8Entry.groupWidth === 0) return;
  throw new UserError(
    `An fp8 cache scales latent values in groups of 128 and this model has ${attention.kvLoraRank}; use bf16.`,
  );
}

/** What is asked of a device and given to its runner. Throws RangeError for a context past what the model was made for. */
function sizesOf(device: Device, config: ModelConfig, options: Omit<OpenLanguageModelOptions, "device">) {
  const maxLength = options.maxContext ?? Math.min(config.maxPositionEmbeddings, 8192);
  checkInteger("maxContext", maxLength, { min: 1, max: config.maxPositionEmbeddings });
  const cacheTokens = checkInteger("cacheTokens", options.cacheTokens ?? maxLength, { min: 1 });
  const { cacheDtype = "bf16", maxDecodeRows = 1 } = options;
  checkCacheDtype(config, cacheDtype);
  const pageCount = ceilDivide(cacheTokens, PAGE_SIZE);
  const maxChunkTokens = Math.min(options.maxChunkTokens ?? 512, maxLength);
  const isExact = chooseExactness(device, config, options);
  const sizes = { cacheDtype, pageCount, pageSize: PAGE_SIZE, maxDecodeRows, maxChunkTokens, isExact };
  return { maxLength, sizes };
}

/**
 * For `openDevice`'s `whyNot`: rejects, for a device that the checkpoint at `location` does not fit, with a UserError that has the numbers, and
 * resolves with null for one that it fits. Rejects as {@link openLanguageModel} for a folder that holds no model.
 */
export async function modelFit(
  location: FolderLocation,
  options: Omit<OpenLanguageModelOptions, "device">,
): Promise<(device: Device) => Promise<null>> {
  const folder = openFolder(location);
  const config = options.config ?? (await readModelConfig(folder));
  const store = await openCheckpoint(folder);
  try {
    const weightBytes = weightBytesOf(store, config);
    // A context past what the model was made for is no fault of the device.
    const maxContext = options.maxContext && Math.min(options.maxContext, config.maxPositionEmbeddings);
    return async (device) => {
      const { maxLength, sizes } = sizesOf(device, config, { ...options, maxContext, onNote: undefined });
      checkFits(device, config, weightBytes, sizes, maxLength);
      return null;
    };
  } finally {
    await store.close();
  }
}

async function load(store: TensorStore, config: ModelConfig, options: OpenLanguageModelOptions) {
  const { device, onProgress, signal } = options;
  const { maxLength, sizes } = sizesOf(device, config, options);
  const validVocab = Math.min(options.tokenizerVocab ?? config.vocabSize, config.vocabSize);
  checkFits(device, config, weightBytesOf(store, config), sizes, maxLength);
  // Everything has its memory before the first weight is read: what does not fit says so at once.
  const { model, load: readWeights } = reserveModel(store, { device, config, maxLength, onProgress, signal });
  const runner = makeRunner(model, { device, model, validVocab, ...sizes });
  try {
    await readWeights();
    return { model, runner };
  } catch (error) {
    runner.free();
    throw error;
  }
}

/** A model as it is, with its runner: for whoever makes weights up. Throws as {@link openLanguageModel} rejects. */
export function languageModelOf(
  model: Model,
  options: Omit<ConstructorParameters<typeof ModelRunner>[0], "model">,
): LanguageModel {
  const { device } = options;
  return languageModel(device, model, makeRunner(model, { ...options, model }));
}

function languageModel(device: Device, model: Model, runner: ModelRunner): LanguageModel {
  const close = () => {
    runner.free();
    model.free();
  };
  const { config, weightBytes } = model;
  return { config, device, runner, maxContext: runner.maxContext, weightBytes, close };
}

function makeRunner(model: Model, options: ConstructorParameters<typeof ModelRunner>[0]): ModelRunner {
  try {
    return new ModelRunner(options);
  } catch (error) {
    model.free();
    throw error;
  }
}

/**
 * Opens the checkpoint in the folder at `location` on a device, with room for `maxContext` tokens in its cache. Rejects with
 * a UserError for a folder that holds no model that can be run, and for one that does not fit the device; RangeError for
 * a `maxContext` past what the model was made for.
 */
export async function openLanguageModel(
  location: FolderLocation,
  options: OpenLanguageModelOptions,
): Promise<LanguageModel> {
  const folder = openFolder(location);
  const config = options.config ?? (await readModelConfig(folder));
  const store = await openCheckpoint(folder);
  try {
    const { model, runner } = await load(store, config, options);
    return languageModel(options.device, model, runner);
  } finally {
    await store.close();
  }
}
