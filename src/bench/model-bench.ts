import { cacheFootprint } from "../engine/cache-footprint.ts";
import type { LanguageModel } from "../engine/language-model.ts";
import type { Ceilings } from "./ceilings.ts";
import { openCeilings } from "./device-ceilings.ts";
import { measureHeap } from "./heap.ts";
import { pause } from "./pause.ts";
import { median } from "./run.ts";
import { SequenceDriver } from "./sequence-driver.ts";

/** What {@link runModelBench} measures. */
export interface ModelBenchOptions {
  /** Prompt tokens of the prefill measurement. */
  readonly prefill: number;
  /** Cached tokens at which decoding is timed, ascending. */
  readonly contexts: readonly number[];
  /** Steps timed at each context; the median counts. */
  readonly steps: number;
  /** Tokens over which the heap is watched; 0 for none. */
  readonly heapTokens: number;
  readonly signal?: AbortSignal;
  /** Called before each part. */
  readonly onPart?: (name: string) => void;
}

/** One decode step at a context. */
export interface DecodeResult {
  readonly cachedTokens: number;
  /** Median. */
  readonly milliseconds: number;
  readonly tokensPerSecond: number;
  /** Weights and cache that a step reads, over its time. */
  readonly gigabytesPerSecond: number;
  /** Of the read bandwidth, on the CPU measured between the steps; null where it is not measured. */
  readonly fractionOfRead: number | null;
}

/** What a model reached. */
export interface ModelBenchResult {
  readonly prefill: { readonly tokens: number; readonly tokensPerSecond: number };
  readonly decode: readonly DecodeResult[];
  /** Null on devices that have no such measurement. */
  readonly ceilings: Ceilings | null;
  /** Bytes of the JavaScript heap per token, after collection; null when not watched. */
  readonly heapBytesPerToken: number | null;
  readonly memory: {
    readonly weightBytes: number;
    readonly cacheBytes: number;
    readonly cacheBytesPerToken: number;
    /** Largest resident size of the process; on a GPU what its memory lost, context and kernels too. */
    readonly peakBytes: number;
  };
}

async function measurePrefill(driver: SequenceDriver, tokens: number): Promise<number> {
  const times: number[] = [];
  for (let run = 0; run < 3; run++) {
    driver.truncate(0);
    const start = performance.now();
    await driver.prefill(tokens);
    times.push(performance.now() - start);
  }
  driver.truncate(0);
  return (tokens / median(times)) * 1000;
}

async function measureDecode(
  driver: SequenceDriver,
  cachedTokens: number,
  steps: number,
  measureCeilings: () => Ceilings | null,
  signal: AbortSignal | undefined,
): Promise<{ times: number[]; ceilings: Ceilings[] }> {
  await driver.prefill(cachedTokens - driver.length);
  const times: number[] = [];
  const ceilings: Ceilings[] = [];
  const look = () => {
    const measured = measureCeilings();
    if (measured !== null) ceilings.push(measured);
  };
  look();
  for (let step = 0; step < steps; step++) {
    await pause(signal);
    const start = performance.now();
    await driver.decode();
    times.push(performance.now() - start);
    if (step % 8 === 7) look();
  }
  driver.truncate(cachedTokens);
  return { times, ceilings };
}

/** Bytes of weights that one decode step reads: all but the embedding's other rows, and of the experts the chosen. */
export function weightBytesPerStep(model: LanguageModel): number {
  const { config, weightBytes } = model;
  const { hiddenSize, vocabSize, experts, mlpLayers, tieWordEmbeddings } = config;
  const elementBytes = 2;
  const embedding = tieWordEmbeddings ? 0 : vocabSize * hiddenSize * elementBytes;
  if (experts === null) return weightBytes - embedding;
  const sparse = mlpLayers.filter((kind) => kind === "sparse").length;
  const expert = 3 * hiddenSize * experts.intermediateSize * elementBytes;
  return weightBytes - embedding - sparse * (experts.count - experts.perToken) * expert;
}

/** The median of each ceiling; null where none was measured. */
function medianCeilings(ceilings: readonly Ceilings[]): Ceilings | null {
  if (ceilings.length === 0) return null;
  return {
    bytesPerSecond: median(ceilings.map(({ bytesPerSecond }) => bytesPerSecond)),
    flopsPerSecond: median(ceilings.map(({ flopsPerSecond }) => flopsPerSecond)),
  };
}

function decodeResult(
  model: LanguageModel,
  cachedTokens: number,
  times: readonly number[],
  ceilings: readonly Ceilings[],
): DecodeResult {
  const milliseconds = median(times);
  const { bytesPerToken } = cacheFootprint(model.config, model.runner.pool.shape.dtype);
  const rate = (weightBytesPerStep(model) + cachedTokens * bytesPerToken) / (milliseconds / 1000);
  const ceiling = medianCeilings(ceilings);
  return {
    ...{ cachedTokens, milliseconds, tokensPerSecond: 1000 / milliseconds, gigabytesPerSecond: rate / 1e9 },
    fractionOfRead: ceiling && rate / ceiling.bytesPerSecond,
  };
}

function memoryOf({ config, device, runner, weightBytes }: LanguageModel): ModelBenchResult["memory"] {
  const { reservedBytes, peakBytes } = device.memory;
  return {
    weightBytes,
    cacheBytes: runner.pool.bytes,
    cacheBytesPerToken: cacheFootprint(config, runner.pool.shape.dtype).bytesPerToken,
    peakBytes: device.kind === "cpu" ? process.resourceUsage().maxRSS * 1024 : (reservedBytes ?? peakBytes),
  };
}

/**
 * Times prefill and decode of a loaded model beside the ceilings of its device. Rejects with a UserError when a context
 * does not fit the model's cache, and with the reason of `signal`.
 */
export async function runModelBench(
  model: LanguageModel,
  options: ModelBenchOptions,
): Promise<ModelBenchResult> {
  const { contexts, steps, heapTokens, signal, onPart } = options;
  onPart?.("ceilings");
  const source = await openCeilings(model.device);
  const driver = new SequenceDriver(model, signal);
  const all: Ceilings[] = [];
  try {
    onPart?.(`prefill of ${options.prefill} tokens`);
    const tokensPerSecond = await measurePrefill(driver, options.prefill);
    const decode: DecodeResult[] = [];
    for (const cachedTokens of contexts) {
      onPart?.(`decode at ${cachedTokens} cached tokens`);
      const measure = () => source?.measure() ?? null;
      const { times, ceilings } = await measureDecode(driver, cachedTokens, steps, measure, signal);
      all.push(...ceilings);
      decode.push(decodeResult(model, cachedTokens, times, ceilings));
    }
    if (heapTokens > 0) onPart?.(`heap over ${heapTokens} tokens`);
    const heapBytesPerToken = heapTokens > 0 ? await measureHeap(driver, heapTokens) : null;
    return {
      prefill: { tokens: options.prefill, tokensPerSecond },
      ...{ decode, ceilings: medianCeilings(all), heapBytesPerToken, memory: memoryOf(model) },
    };
  } finally {
    source?.free();
  }
}
