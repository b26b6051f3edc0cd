import { allocateTogether, bytesOf } from "../device/allocations.ts";
import type { Device, DeviceBuffer, Launch } from "../device/device.ts";
import type { ModelConfig } from "../formats/config-types.ts";
import type { TensorStore } from "../formats/safetensors.ts";
import type { LatentCache } from "../kernels/common/latent-cache.ts";
import { embedding } from "../kernels/embedding/embedding.ts";
import { fusesNorm, linear } from "../kernels/linear/linear.ts";
import { rmsNorm } from "../kernels/rms-norm/rms-norm.ts";
import { decoderLayer, type LayerContext, type PositionTables } from "./layers.ts";
import { type ModelWeights, requestWeights } from "./model-weights.ts";
import { queryScaleTable, rotaryTable } from "./rope.ts";
import { type LoadProgress, type WeightRequests, WeightSource } from "./weight-source.ts";

/** How {@link loadModel} goes about it. */
export interface LoadModelOptions {
  readonly device: Device;
  readonly config: ModelConfig;
  /** Tokens of the longest sequence: the length of the tables by position. */
  readonly maxLength: number;
  readonly onProgress?: LoadProgress | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A model in device memory; it records steps, and holds no state of any sequence. */
export interface Model {
  readonly config: ModelConfig;
  readonly weights: ModelWeights;
  readonly tables: PositionTables;
  readonly maxLength: number;
  /** Bytes of the weights on the device. */
  readonly weightBytes: number;
  /** Gives the memory back. */
  free(): void;
}

/** Bytes of device memory that the weights of a checkpoint take. Throws UserError where it does not fit `config`. */
export function weightBytesOf(store: TensorStore, config: ModelConfig): number {
  return bytesOf((allocate) => requestWeights(new WeightSource(store, allocate), config));
}

function loadTables(device: Device, config: ModelConfig, maxLength: number): PositionTables {
  const scale = queryScaleTable(config, maxLength);
  return allocateTogether(device, (allocate) => {
    const upload = (values: Float32Array, label: string) => {
      const buffer = allocate(values.byteLength, label);
      device.write(buffer, values);
      return buffer;
    };
    return {
      rotary: upload(rotaryTable(config, maxLength), "rotary table"),
      queryScale: scale && upload(scale, "query scale table"),
    };
  });
}

function zeroEmbedding({ embedding: { buffer, rows } }: ModelWeights, device: Device, id: number): void {
  const bytes = buffer.bytes / rows;
  device.write(buffer, new Uint8Array(bytes), id * bytes);
}

/** A model whose memory is reserved, and what fills it. */
export interface ReservedModel {
  readonly model: Model;
  /** Brings the weights there. Rejects with what reading and `signal` reject with; nothing stays allocated then. */
  load(): Promise<void>;
}

/**
 * Reserves memory for the weights of `store` as they are stored; they come with `load`. Throws UserError for a checkpoint that does
 * not fit `config` or the device; nothing stays allocated then.
 */
export function reserveModel(store: TensorStore, options: LoadModelOptions): ReservedModel {
  const { device, config, maxLength, onProgress, signal } = options;
  const source = new WeightSource(store, (bytes, label) => device.allocate(bytes, label));
  const model = modelOf(source, device, config, maxLength);
  const load = async () => {
    try {
      await source.load(device, onProgress, signal);
      if (config.zeroEmbeddingId !== null) zeroEmbedding(model.weights, device, config.zeroEmbeddingId);
    } catch (error) {
      model.free();
      throw error;
    }
  };
  return { model, load };
}

/** Brings the weights of `store` to the device. Rejects as {@link reserveModel} throws and its `load` rejects. */
export async function loadModel(store: TensorStore, options: LoadModelOptions): Promise<Model> {
  const { model, load } = reserveModel(store, options);
  await load();
  return model;
}

/** A model over the weights that `source` hands out, which somebody fills. Throws as `source` does; nothing stays then. */
export function modelOf(
  source: WeightRequests,
  device: Device,
  config: ModelConfig,
  maxLength: number,
): Model {
  try {
    const weights = requestWeights(source, config);
    const tables = loadTables(device, config, maxLength);
    const free = () => {
      source.free();
      tables.rotary.free();
      tables.queryScale?.free();
    };
    return { config, weights, tables, maxLength, weightBytes: source.totalBytes, free };
  } catch (error) {
    source.free();
    throw error;
  }
}

/** Records the embedding and every decoder layer of a step; `caches` are the layers' pools. */
export function recordLayers(
  model: Model,
  context: Omit<LayerContext, "config" | "tables" | "maxLength">,
  caches: readonly LatentCache[],
): void {
  const { config, weights, tables, maxLength } = model;
  const { launch, inputs, buffers } = context;
  if (caches.length !== config.numLayers) {
    throw new RangeError(`caches: the cache has ${caches.length} layers and the model ${config.numLayers}`);
  }
  embedding(launch, {
    ids: inputs.ids,
    table: weights.embedding,
    scale: config.scaling.embedding,
    out: buffers.hidden,
    rowCount: inputs.rowCount,
    maxRows: buffers.maxRows,
  });
  weights.layers.forEach((layer, index) => {
    decoderLayer({ ...context, config, tables, maxLength }, layer, caches[index]!);
  });
}

/** Buffers of {@link recordHead}: k rows of n are turned into logits. */
export interface HeadBuffers {
  /** f32 [n, hidden]: what {@link recordLayers} left. */
  readonly hidden: DeviceBuffer;
  readonly hiddenRows: number;
  /** i32 [k]: the rows of `hidden` wanted. */
  readonly rows: DeviceBuffer;
  /** i32 [1]: rows in use. */
  readonly rowCount: DeviceBuffer;
  /** f32 [k, hidden]. */
  readonly gathered: DeviceBuffer;
  /** f32 [k, vocab]. */
  readonly logits: DeviceBuffer;
  readonly maxRows: number;
  /** A place for `maxRows` rows in bf16, as that of the step's buffers; null where nothing is rounded. */
  readonly rounded: DeviceBuffer | null;
}

/** Records the last norm and the head over chosen rows. */
export function recordHead(launch: Launch, { config, weights }: Model, buffers: HeadBuffers): void {
  const { hidden, hiddenRows, rows, rowCount, gathered, logits, maxRows, rounded } = buffers;
  const table = { buffer: hidden, dtype: "f32", rows: hiddenRows, columns: config.hiddenSize } as const;
  embedding(launch, { ids: rows, table, scale: 1, out: gathered, rowCount, maxRows });
  const norm = { weight: weights.norm, epsilon: config.rmsNormEps };
  const isFused = fusesNorm(launch.target, maxRows);
  if (!isFused) {
    rmsNorm(launch, { x: gathered, out: gathered, width: config.hiddenSize, ...norm, rowCount, maxRows });
  }
  const scale = config.scaling.logits;
  const head = {
    x: gathered,
    weight: weights.head,
    out: logits,
    mode: "store",
    scale,
    rowCount,
    maxRows,
  } as const;
  const hasRoom = rounded !== null && rounded.bytes >= maxRows * config.hiddenSize * 2;
  linear(launch, isFused ? { ...head, norm } : { ...head, rounded: hasRoom ? rounded : undefined });
}
