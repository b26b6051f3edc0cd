import { bytesOf } from "../device/allocations.ts";
import type { Device, DeviceBuffer } from "../device/device.ts";
import { PAGE_SIZE } from "../engine/cache-footprint.ts";
import { checkFits } from "../engine/check-fits.ts";
import { type LanguageModel, languageModelOf } from "../engine/language-model.ts";
import type { RunnerSizes } from "../engine/runner-memory.ts";
import type { ModelConfig } from "../formats/config-types.ts";
import { modelOf } from "../models/model.ts";
import { requestWeights } from "../models/model-weights.ts";
import type { Matrix, WeightRequests } from "../models/weight-source.ts";
import { CompareArena } from "./compare/arena.ts";

type Arena = Pick<CompareArena, "upload" | "matrix" | "free">;

/** Hands out random bf16 matrices and norms of ones, made on the device. */
class RandomWeights implements WeightRequests {
  readonly #arena: Arena;
  #bytes = 0;

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  get totalBytes(): number {
    return this.#bytes;
  }

  /** Every tensor but those that hold all experts at once: experts come one by one, as published checkpoints have them. */
  has(name: string): boolean {
    return !name.includes("gate_up_proj");
  }

  vector(name: string, length: number): DeviceBuffer {
    this.#bytes += 4 * length;
    return this.#arena.upload(name, new Float32Array(length).fill(1));
  }

  matrix(name: string, rows: number, columns: number): Matrix {
    this.#bytes += 2 * rows * columns;
    return this.#arena.matrix(name, rows, columns);
  }

  stack(
    names: readonly string[],
    shape: readonly number[] | readonly (readonly number[])[],
    label: string,
  ): Matrix {
    const shapes = names.map(
      (_, i) => (typeof shape[0] === "number" ? shape : shape[i]) as readonly number[],
    );
    const columns = shapes[0]!.at(-1)!;
    const rows = shapes.reduce((sum, one) => sum + one.slice(0, -1).reduce((a, b) => a * b, 1), 0);
    return this.matrix(label, rows, columns);
  }

  free(): void {
    this.#arena.free();
  }
}

/** Sizes of {@link randomModel}. */
export interface RandomModelSizes {
  /** Tokens of the longest sequence. */
  readonly maxContext: number;
  /** Tokens in the cache over all sequences. */
  readonly cacheTokens: number;
  readonly maxDecodeRows: number;
  readonly maxChunkTokens: number;
  /** Keeps activations in float32. */
  readonly isExact: boolean;
}

/** Bytes of the weights of a model of that shape. */
function weightBytesOf(config: ModelConfig): number {
  return bytesOf((allocate) => {
    const matrix = (label: string, rows: number, columns: number) => {
      return { buffer: allocate(2 * rows * columns, label), dtype: "bf16" as const, rows, columns };
    };
    const upload = (label: string, data: ArrayBufferView) => allocate(data.byteLength, label);
    requestWeights(new RandomWeights({ matrix, upload, free: () => {} }), config);
  });
}

/** A model of that shape with random weights, its bf16 cache full of random entries. Throws UserError when it does not fit. */
export function randomModel(device: Device, config: ModelConfig, sizes: RandomModelSizes): LanguageModel {
  const { maxContext, cacheTokens, maxDecodeRows, maxChunkTokens, isExact } = sizes;
  const pageCount = Math.ceil(cacheTokens / PAGE_SIZE);
  const taken: RunnerSizes = {
    ...{ cacheDtype: "bf16", pageSize: PAGE_SIZE, pageCount },
    ...{ maxDecodeRows, maxChunkTokens, isExact },
  };
  checkFits(device, config, weightBytesOf(config), taken, maxContext);
  const model = modelOf(new RandomWeights(new CompareArena(device)), device, config, maxContext);
  const language = languageModelOf(model, { device, validVocab: config.vocabSize, ...taken });
  const arena = new CompareArena(device);
  const { pool } = language.runner;
  for (let layer = 0; layer < pool.shape.layers; layer++) arena.fillBf16(pool.layer(layer), 0.5);
  return language;
}
