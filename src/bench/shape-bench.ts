import type { Device } from "../device/device.ts";
import { cacheFootprint, PAGE_SIZE } from "../engine/cache-footprint.ts";
import type { LanguageModel } from "../engine/language-model.ts";
import type { ModelConfig } from "../formats/config-types.ts";
import { BatchDriver } from "./batch-driver.ts";
import type { Ceilings } from "./ceilings.ts";
import { measureDeviceCeilings } from "./device-ceilings.ts";
import { weightBytesPerStep } from "./model-bench.ts";
import { pause } from "./pause.ts";
import { randomModel } from "./random-model.ts";
import { median } from "./run.ts";
import { SequenceDriver } from "./sequence-driver.ts";

/** A batch and a context at which decoding is timed. */
export interface DecodeCell {
  readonly batch: number;
  readonly cachedTokens: number;
}

/** What {@link runShapeBench} measures. */
export interface ShapeBenchOptions {
  readonly cells: readonly DecodeCell[];
  /** Prompt tokens of the prefill measurement; 0 for none. */
  readonly prefill: number;
  /** Prompt tokens of one chunk. */
  readonly chunk: number;
  /** Steps timed of each cell; the median counts. */
  readonly steps: number;
  /** Keeps activations in float32; default false. */
  readonly exact?: boolean;
  readonly signal?: AbortSignal;
  readonly onPart?: (name: string) => void;
}

/** One cell's speed. */
export interface DecodeCellResult extends DecodeCell {
  /** A step of all sequences, from the host's inputs to its token ids; median. */
  readonly milliseconds: number;
  readonly tokensPerSecond: number;
  /** Weights and cache that a step reads at least, over its time. */
  readonly gigabytesPerSecond: number;
  /** Of the read ceiling; null where it is not measured. */
  readonly fractionOfRead: number | null;
}

/** What prompts reached. */
export interface PrefillResult {
  readonly tokens: number;
  readonly milliseconds: number;
  readonly tokensPerSecond: number;
  /** Products of all weights but the embedding and the head, and causal attention. */
  readonly teraflops: number;
}

/** Everything measured of one shape. */
export interface ShapeBenchResult {
  readonly ceilings: Ceilings | null;
  readonly prefill: PrefillResult | null;
  readonly decode: readonly DecodeCellResult[];
  readonly memory: {
    readonly weightBytes: number;
    readonly cacheBytes: number;
    readonly cacheBytesPerToken: number;
    /** Most that the device's memory held: on CUDA all that the GPU lost, context and kernels too. */
    readonly peakBytes: number;
  };
}

/** Bytes of weights that `rows` rows read of sparse layers, when they choose experts evenly, and of everything else. */
function stepBytes(model: LanguageModel, { batch, cachedTokens }: DecodeCell): number {
  const { experts, mlpLayers, hiddenSize } = model.config;
  const cache = cacheFootprint(model.config, "bf16").bytesPerToken * batch * cachedTokens;
  const base = weightBytesPerStep(model) + cache;
  if (experts === null) return base;
  const { count, perToken, intermediateSize } = experts;
  const chosen = count * (1 - (1 - perToken / count) ** batch);
  const sparse = mlpLayers.filter((kind) => kind === "sparse").length;
  return base + (chosen - perToken) * sparse * 3 * hiddenSize * intermediateSize * 2;
}

/** FLOPs of a prompt: two for every weight that a token meets, and the scores and values of causal attention. */
export function prefillFlops(model: LanguageModel, tokens: number): number {
  const { config } = model;
  const { heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = config.attention;
  const head = config.vocabSize * config.hiddenSize;
  const weights = weightBytesPerStep(model) / 2 - head;
  const attention = config.numLayers * heads * (qkNopeHeadDim + qkRopeHeadDim + vHeadDim);
  return 2 * weights * tokens + attention * tokens * (tokens + 1);
}

async function measurePrefill(
  model: LanguageModel,
  tokens: number,
  signal: AbortSignal | undefined,
): Promise<PrefillResult> {
  const driver = new SequenceDriver(model, signal);
  const times: number[] = [];
  for (let run = 0; run < 4; run++) {
    driver.truncate(0);
    const start = performance.now();
    await driver.prefill(tokens);
    times.push(performance.now() - start);
  }
  // The first run records the steps.
  const milliseconds = median(times.slice(1));
  const seconds = milliseconds / 1000;
  const teraflops = prefillFlops(model, tokens) / seconds / 1e12;
  return { tokens, milliseconds, tokensPerSecond: tokens / seconds, teraflops };
}

/** A cell's figures from its times in milliseconds and the bytes that a step reads. */
export function cellResult(
  cell: DecodeCell,
  times: readonly number[],
  bytes: number,
  ceilings: Ceilings | null,
): DecodeCellResult {
  const milliseconds = median(times);
  const rate = bytes / (milliseconds / 1000);
  return {
    ...cell,
    milliseconds,
    tokensPerSecond: (1000 * cell.batch) / milliseconds,
    gigabytesPerSecond: rate / 1e9,
    fractionOfRead: ceilings && rate / ceilings.bytesPerSecond,
  };
}

async function measureCell(
  model: LanguageModel,
  cell: DecodeCell,
  { steps, signal }: Pick<ShapeBenchOptions, "steps" | "signal">,
  ceilings: Ceilings | null,
): Promise<DecodeCellResult> {
  const warmUp = 3;
  const driver = new BatchDriver(model, cell.batch, cell.cachedTokens, steps + warmUp);
  for (let step = 0; step < warmUp; step++) await driver.decode();
  const times: number[] = [];
  for (let step = 0; step < steps; step++) {
    await pause(signal);
    const start = performance.now();
    await driver.decode();
    times.push(performance.now() - start);
  }
  return cellResult(cell, times, stepBytes(model, cell), ceilings);
}

/**
 * Times prefill and decode of a model with made-up weights beside the read ceiling of its device. Rejects with a UserError when
 * it does not fit.
 */
export async function runShapeBench(
  device: Device,
  config: ModelConfig,
  options: ShapeBenchOptions,
): Promise<ShapeBenchResult> {
  const { cells, prefill, chunk, steps, onPart } = options;
  const room = steps + 3 + PAGE_SIZE;
  onPart?.("ceilings");
  const ceilings = await measureDeviceCeilings(device);
  onPart?.("weights");
  const model = randomModel(device, config, {
    maxContext: Math.max(prefill + 1, ...cells.map(({ cachedTokens }) => cachedTokens + room)),
    cacheTokens: Math.max(
      prefill + PAGE_SIZE,
      ...cells.map(({ batch, cachedTokens }) => batch * (cachedTokens + room)),
    ),
    maxDecodeRows: Math.max(1, ...cells.map(({ batch }) => batch)),
    maxChunkTokens: Math.max(1, Math.min(chunk, prefill)),
    isExact: options.exact ?? false,
  });
  try {
    const decode: DecodeCellResult[] = [];
    for (const cell of cells) {
      onPart?.(`decode, ${cell.batch} × ${cell.cachedTokens} cached tokens`);
      decode.push(await measureCell(model, cell, options, ceilings));
    }
    if (prefill > 0) onPart?.(`prefill of ${prefill} tokens`);
    const prompt = prefill > 0 ? await measurePrefill(model, prefill, options.signal) : null;
    const { memory } = device;
    return {
      ceilings,
      prefill: prompt,
      decode,
      memory: {
        weightBytes: model.weightBytes,
        cacheBytes: model.runner.pool.bytes,
        cacheBytesPerToken: cacheFootprint(config, "bf16").bytesPerToken,
        peakBytes: memory.reservedBytes ?? memory.peakBytes,
      },
    };
  } finally {
    model.close();
  }
}
