import { randomInt } from "node:crypto";
import { fileURLToPath } from "node:url";
import { UserError } from "../base/errors.ts";
import type { Device } from "../device/device.ts";
import {
  type LanguageModel,
  modelFit,
  type OpenLanguageModelOptions,
  openLanguageModel,
} from "../engine/language-model.ts";
import type { Runner } from "../engine/runner-types.ts";
import type { ModelConfig } from "../formats/config-types.ts";
import { resolveModel } from "../formats/hub.ts";
import { type GenerationDefaults, readGenerationDefaults, readModelConfig } from "../formats/model-folder.ts";
import type { SamplingParams } from "../kernels/sampling/params.ts";
import { openTokenizer } from "../text/open-tokenizer.ts";
import { fitsVocabulary, type Tokenizer } from "../text/tokenizer.ts";
import { openFlaggedDevice } from "./device-choice.ts";
import type { ModelFlags, SamplingFlags } from "./model-flags.ts";
import { note, paintError } from "./output.ts";
import { startProgress } from "./progress.ts";

/** The trained model that ships with the package. */
export const shippedModel = fileURLToPath(new URL("../../models/shakespeare-mla", import.meta.url));

/** A model's folder with what is read before its weights. */
export interface ModelFolder {
  readonly path: string;
  readonly config: ModelConfig;
  readonly defaults: GenerationDefaults;
}

/** Finds `model`, a folder or an id of the hub, downloading it with a progress bar, and reads its configs. */
export async function findModel(model: string, signal: AbortSignal): Promise<ModelFolder> {
  const bars = new Map<string, ReturnType<typeof startProgress>>();
  const onProgress = (file: string, done: number, total: number) => {
    const bar = bars.get(file) ?? startProgress(`Downloading ${file}`, "bytes");
    bars.set(file, bar);
    bar.update(done, total);
    if (done === total) bar.stop();
  };
  try {
    const path = await resolveModel(model, { onProgress, signal });
    const config = await readModelConfig(path);
    return { path, config, defaults: await readGenerationDefaults(path, config) };
  } finally {
    for (const bar of bars.values()) bar.stop();
  }
}

/** The tokenizer of a model. Rejects with a UserError when its ids do not fit the model's vocabulary. */
export async function findTokenizer({ path, config }: ModelFolder): Promise<Tokenizer> {
  const tokenizer = await openTokenizer(path);
  fitsVocabulary(tokenizer, config.vocabSize);
  return tokenizer;
}

/** A model that is ready, and how to put everything away. */
export interface ModelSession {
  readonly model: LanguageModel;
  readonly device: Device;
  readonly loadMs: number;
  /** After the device was lost: opens another of its kind and loads the model again. */
  reopen(): Promise<Runner>;
  close(): Promise<void>;
}

/** What {@link openSession} needs beside the flags. */
export interface SessionNeeds {
  /** Tokens that must fit; bounded by what the model was made for. */
  readonly tokens: number;
  readonly tokenizerVocab?: number | undefined;
  readonly maxDecodeRows?: number | undefined;
  /** Writes a line that says which device was chosen and why. */
  readonly tellsDevice?: boolean;
  readonly signal: AbortSignal;
}

/**
 * Loads a model's weights with a progress bar, on the best device that holds it. Rejects with a UserError
 * when none does.
 */
export async function openSession(
  { path, config }: ModelFolder,
  flags: ModelFlags,
  { tokens, tokenizerVocab, maxDecodeRows, tellsDevice, signal }: SessionNeeds,
): Promise<ModelSession> {
  const start = performance.now();
  const limit = config.maxPositionEmbeddings;
  if (flags.maxContext !== undefined && flags.maxContext > limit) {
    throw new UserError(
      `This model's context is ${limit} tokens; --max-context asks for ${flags.maxContext}.`,
    );
  }
  const maxContext = flags.maxContext ?? Math.min(tokens, limit);
  const options = {
    ...{ config, cacheDtype: flags.cache, exact: flags.exact, maxContext, tokenizerVocab, maxDecodeRows },
    ...{ onNote: note, signal },
  };
  const chosen = await openFlaggedDevice(flags, await modelFit(path, options));
  if (tellsDevice && chosen.line !== null) note(paintError.dim(chosen.line));
  let { device } = chosen;
  let model = await loadOn(device, path, options);
  const loadMs = performance.now() - start;
  return {
    loadMs,
    get model() {
      return model;
    },
    get device() {
      return device;
    },
    async reopen() {
      note("The device was lost. It is opened anew, and the model loaded again.");
      await device.close();
      device = (await openFlaggedDevice({ ...flags, device: device.kind })).device;
      model = await loadOn(device, path, options);
      return model.runner;
    },
    async close() {
      model.close();
      await device.close();
    },
  };
}

/** Loads the weights with a progress bar; closes the device where that fails. */
async function loadOn(
  device: Device,
  path: string,
  options: Omit<OpenLanguageModelOptions, "device" | "onProgress">,
): Promise<LanguageModel> {
  const bar = startProgress("Loading weights", "bytes");
  try {
    const onProgress = (done: number, total: number) => bar.update(done, total);
    return await openLanguageModel(path, { ...options, device, onProgress });
  } catch (error) {
    await device.close();
    throw error;
  } finally {
    bar.stop();
  }
}

/** How tokens are drawn: the flags, then what the model suggests, then greedy. */
export function chooseSampling(
  flags: SamplingFlags,
  defaults: GenerationDefaults,
): Omit<SamplingParams, "step"> {
  const suggested: Partial<GenerationDefaults> = defaults.doSample ? defaults : { temperature: 0 };
  return {
    temperature: flags.greedy ? 0 : (flags.temperature ?? suggested.temperature ?? 1),
    topK: flags.topK ?? suggested.topK ?? 0,
    topP: flags.topP ?? suggested.topP ?? 1,
    minP: flags.minP ?? suggested.minP ?? 0,
    seed: flags.seed ?? randomInt(2 ** 32),
  };
}

/** The exit code of a shell for a program ended by Ctrl-C. */
const INTERRUPTED = 130;

/**
 * Runs `task` with a signal that Ctrl-C aborts; the task ends in its own way, or throws and one sentence says so. A second
 * Ctrl-C ends the process. The exit code is then 130.
 */
export async function withInterrupt(task: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const controller = new AbortController();
  const interrupt = () => {
    process.exitCode = INTERRUPTED;
    controller.abort();
    process.once("SIGINT", () => process.exit(INTERRUPTED));
  };
  process.once("SIGINT", interrupt);
  try {
    await task(controller.signal);
  } catch (error) {
    if (!controller.signal.aborted) throw error;
    note("Stopped by Ctrl-C.");
  } finally {
    process.removeListener("SIGINT", interrupt);
  }
}
