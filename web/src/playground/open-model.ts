import {
  cacheFootprint,
  type Device,
  Engine,
  type FolderLocation,
  keptUrlFolder,
  type LanguageModel,
  openDevice,
  openFolder,
  openLanguageModel,
  openTokenizer,
  pickedFolder,
  readModelConfig,
  type Tokenizer,
  UserError,
} from "flashmla";
import { type GenerationDefaults, readGenerationDefaults } from "flashmla/formats";
import { fitsVocabulary } from "flashmla/text";
import type { ModelChoice, ModelFacts, OpenRequest } from "./protocol.ts";

/** Tokens of the longest text on this page; a page of 64 tokens is drawn as 64 dots, and they have to fit a screen. */
const longestContext = 4096;
const cacheDtype = "bf16";

/** A model that answers, and how to put it away. */
export interface OpenModel {
  readonly engine: Engine;
  readonly tokenizer: Tokenizer;
  readonly facts: ModelFacts;
  /** Whether the device has gone away with everything it held, as a GPU does when its driver is reset. */
  isLost(): boolean;
  close(): Promise<void>;
}

type Progress = (stage: "fetching" | "loading", done: number, total: number) => void;

interface Found {
  readonly location: FolderLocation;
  readonly name: string;
  /** Reasons for which files were not kept. */
  readonly notKept: readonly string[];
}

async function find(model: ModelChoice, progress: Progress, signal: AbortSignal): Promise<Found> {
  if (model.kind === "files") {
    const folder = pickedFolder(model.files);
    return { location: folder, name: folder.name, notKept: [] };
  }
  const { address } = model;
  if (!URL.canParse(address)) {
    throw new UserError(`${JSON.stringify(address)} is no address; give one like https://host/models/name/`);
  }
  const notKept: string[] = [];
  const location = await keptUrlFolder(address, {
    onProgress: (_file, done, total) => progress("fetching", done, total),
    onNotKept: (_file, reason) => notKept.push(reason),
    signal,
  });
  return {
    location,
    name: new URL(address).pathname.split("/").filter(Boolean).at(-1) ?? address,
    notKept,
  };
}

interface FoundDevice {
  readonly device: Device;
  readonly withoutWebGpu: string | null;
}

async function findDevice({ device: wanted, threads }: OpenRequest): Promise<FoundDevice> {
  let withoutWebGpu: string | null = null;
  const device = await openDevice({
    ...(wanted === "automatic" ? {} : { kind: wanted }),
    ...(threads === null ? {} : { threads }),
    onPassedOver: (kind, reason) => {
      if (kind === "webgpu") withoutWebGpu = reason;
    },
  });
  return { device, withoutWebGpu };
}

/** Why the CPU device has one thread, as a sentence. */
function threadsMissing({ kind, limits }: Device, { threads }: OpenRequest): string | null {
  if (kind !== "cpu" || limits.computeUnits > 1 || threads === 1) return null;
  if (self.crossOriginIsolated) return null;
  return "It has one thread, since the page's server does not make it cross-origin isolated.";
}

/** Opens device, model and engine. Rejects with a UserError that says what is wrong with the folder or the address. */
export async function openModel(
  request: OpenRequest,
  progress: Progress,
  signal: AbortSignal,
): Promise<OpenModel> {
  const begin = performance.now();
  const { location, name, notKept } = await find(request.model, progress, signal);
  const folder = openFolder(location);
  const config = await readModelConfig(folder);
  const [defaults, tokenizer] = await Promise.all([
    readGenerationDefaults(folder, config),
    openTokenizer(folder),
  ]);
  fitsVocabulary(tokenizer, config.vocabSize);
  const { device, withoutWebGpu } = await findDevice(request);
  try {
    const model = await openLanguageModel(folder, {
      ...{ device, config, cacheDtype, signal, tokenizerVocab: tokenizer.vocabSize },
      maxContext: Math.min(config.maxPositionEmbeddings, longestContext),
      onProgress: (done, total) => progress("loading", done, total),
    });
    const engine = new Engine({ runner: model.runner, tokenizer, eosTokenIds: defaults.eosTokenIds });
    const facts: ModelFacts = {
      ...{
        name,
        type: config.modelType,
        weightBytes: model.weightBytes,
        hasChat: tokenizer.chat !== undefined,
      },
      ...{ deviceKind: device.kind, deviceName: device.name, withoutWebGpu },
      withoutThreads: threadsMissing(device, request),
      ...cacheFacts(model),
      defaults: samplingOf(defaults),
      notKept: notKept[0] ?? null,
      openMs: performance.now() - begin,
    };
    const close = async () => {
      await engine.close();
      model.close();
      await device.close();
    };
    return { engine, tokenizer, facts, isLost: () => isLost(device), close };
  } catch (error) {
    await device.close();
    throw error;
  }
}

function isLost(device: Device): boolean {
  try {
    device.allocate(256, "a probe").free();
    return false;
  } catch {
    return true;
  }
}

function cacheFacts({ config, runner, maxContext }: LanguageModel) {
  const { bytesPerToken, fullHeadsBytesPerToken } = cacheFootprint(config, cacheDtype);
  const { pageSize, pageCount } = runner;
  return { maxContext, pageSize, pageCount, cacheDtype, bytesPerToken, fullHeadsBytesPerToken };
}

function samplingOf({ doSample, temperature = 1, topK = 0, topP = 1 }: GenerationDefaults) {
  return doSample ? { temperature, topK, topP } : { temperature: 0, topK: 0, topP: 1 };
}
