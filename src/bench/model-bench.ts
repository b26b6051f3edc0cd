import type { LanguageModel } from "../engine/language-model.ts";
import { cacheFootprint } from "../engine/language-model.ts";
import { type Ceilings, createCeilingMeter } from "./ceilings.ts";
import { measureHeap } from "./heap.ts";
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
  /** Of the read bandwidth measured between the steps. */
  readonly fractionOfRead: number;
}

/** What a model reached. */
export interface ModelBenchResult {
  readonly prefill: { readonly tokens: number; readonly tokensPerSecond: number };
  readonly decode: readonly DecodeResult[];
  readonly ceilings: Ceilings;
  /** Bytes of the JavaScript heap per token, after collection; null when not watched. */
  readonly heapBytesPerToken: number | null;
  readonly memory: {
    readonly weightBytes: number;
    readonly cacheBytes: number;
    readonly cacheBytesPerToken: number;
    /** Largest resident size of the process. */
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
  measureCeilings: () => Ceilings,
): Promise<{ times: number[]; ceilings: Ceilings[] }> {
  await driver.prefill(cachedTokens - driver.length);
  const times: number[] = [];
  const ceilings = [measureCeilings()];
  for (let step = 0; step < steps; step++) {
    const start = performance.now();
    await driver.decode();
    times.push(performance.now() - start);
    if (step % 8 === 7) ceilings.push(measureCeilings());
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

/**
 * Times prefill and decode of a loaded model beside the ceilings of its device. Rejects with a UserError when a context
 * does not fit the model's cache.
 */
export async function runModelBench(
  model: LanguageModel,
  options: ModelBenchOptions,
): Promise<ModelBenchResult> {
  const { contexts, steps, heapTokens, onPart } = options;
  const meter = createCeilingMeter(model.device);
  const driver = new SequenceDriver(model);
  const footprint = cacheFootprint(model.config, model.runner.pool.shape.dtype);
  const all: Ceilings[] = [];
  try {
    onPart?.(`prefill of ${options.prefill} tokens`);
    const tokensPerSecond = await measurePrefill(driver, options.prefill);
    const decode: DecodeResult[] = [];
    for (const cachedTokens of contexts) {
      onPart?.(`decode at ${cachedTokens} cached tokens`);
      const { times, ceilings } = await measureDecode(driver, cachedTokens, steps, () => meter.measure());
      all.push(...ceilings);
      const milliseconds = median(times);
      const bytes = weightBytesPerStep(model) + cachedTokens * footprint.bytesPerToken;
      const rate = bytes / (milliseconds / 1000);
      const read = median(ceilings.map(({ bytesPerSecond }) => bytesPerSecond));
      decode.push({
        cachedTokens,
        milliseconds,
        tokensPerSecond: 1000 / milliseconds,
        gigabytesPerSecond: rate / 1e9,
        fractionOfRead: rate / read,
      });
    }
    if (heapTokens > 0) onPart?.(`heap over ${heapTokens} tokens`);
    const heapBytesPerToken = heapTokens > 0 ? await measureHeap(driver, heapTokens) : null;
    return {
      prefill: { tokens: options.prefill, tokensPerSecond },
      decode,
      ceilings: {
        bytesPerSecond: median(all.map(({ bytesPerSecond }) => bytesPerSecond)),
        flopsPerSecond: median(all.map(({ flopsPerSecond }) => flopsPerSecond)),
      },
      heapBytesPerToken,
      memory: {
        weightBytes: model.weightBytes,
        cacheBytes: model.runner.pool.bytes,
        cacheBytesPerToken: footprint.bytesPerToken,
        peakBytes: process.resourceUsage().maxRSS * 1024,
      },
    };
  } finally {
    meter.free();
  }
}
