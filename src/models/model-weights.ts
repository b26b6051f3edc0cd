import { UserError } from "../base/errors.ts";
import type { DeviceBuffer } from "../device/device.ts";
import type { ExpertsConfig, ModelConfig } from "../formats/config-types.ts";
import type {
  AttentionNames,
  CheckpointNames,
  ExpertNames,
  GatedMlpNames,
} from "./architectures/architecture.ts";
import { architectures } from "./architectures/registry.ts";
import type { Matrix, WeightRequests } from "./weight-source.ts";

/** A SwiGLU MLP: gate and up [intermediate, hidden], down [hidden, intermediate]. */
export interface GatedMlpWeights {
  readonly gate: Matrix;
  readonly up: Matrix;
  readonly down: Matrix;
}

/** The query projection: one matrix, or W_DQ, a norm and W_UQ. */
export type QueryWeights =
  | { readonly kind: "direct"; readonly project: Matrix }
  | {
      readonly kind: "low-rank";
      readonly compress: Matrix;
      readonly norm: DeviceBuffer;
      readonly expand: Matrix;
    };

/** Latent attention of one layer. */
export interface AttentionWeights {
  readonly query: QueryWeights;
  /** [d_c + d_r, hidden]: W_DKV, then W_KR. */
  readonly latent: Matrix;
  /** f32 [d_c]. */
  readonly latentNorm: DeviceBuffer;
  /** [heads · (d_n + d_v), d_c]: per head W_UK, then W_UV. */
  readonly kvB: Matrix;
  /** [hidden, heads · d_v]. */
  readonly output: Matrix;
}

/** Routed experts of one layer, stacked, beside the shared ones. */
export interface SparseMlpWeights {
  readonly kind: "sparse";
  /** [experts, hidden]. */
  readonly router: Matrix;
  /** f32 [experts], where the router has one. */
  readonly correctionBias: DeviceBuffer | null;
  readonly gateUp:
    | { readonly layout: "separate"; readonly gate: Matrix; readonly up: Matrix }
    | { readonly layout: "fused"; readonly gateUp: Matrix };
  /** [experts · hidden, intermediate]. */
  readonly down: Matrix;
  readonly shared: GatedMlpWeights | null;
}

/** One decoder layer. */
export interface LayerWeights {
  /** f32 [hidden]. */
  readonly inputNorm: DeviceBuffer;
  readonly attention: AttentionWeights;
  /** f32 [hidden]. */
  readonly mlpNorm: DeviceBuffer;
  readonly mlp: ({ readonly kind: "dense" } & GatedMlpWeights) | SparseMlpWeights;
}

/** All weights of a model in device memory. */
export interface ModelWeights {
  /** [vocab, hidden]. */
  readonly embedding: Matrix;
  readonly layers: readonly LayerWeights[];
  /** f32 [hidden]. */
  readonly norm: DeviceBuffer;
  /** [vocab, hidden]; the embedding itself where the two are tied. */
  readonly head: Matrix;
}

function gatedMlp(
  source: WeightRequests,
  prefix: string,
  names: GatedMlpNames,
  hidden: number,
  intermediate: number,
): GatedMlpWeights {
  return {
    gate: source.matrix(prefix + names.gate, intermediate, hidden),
    up: source.matrix(prefix + names.up, intermediate, hidden),
    down: source.matrix(prefix + names.down, hidden, intermediate),
  };
}

function query(
  source: WeightRequests,
  prefix: string,
  names: AttentionNames,
  config: ModelConfig,
): QueryWeights {
  const { heads, qLoraRank, qkNopeHeadDim, qkRopeHeadDim } = config.attention;
  const width = heads * (qkNopeHeadDim + qkRopeHeadDim);
  if (qLoraRank === null) {
    return { kind: "direct", project: source.matrix(prefix + names.query, width, config.hiddenSize) };
  }
  return {
    kind: "low-rank",
    compress: source.matrix(prefix + names.queryCompress, qLoraRank, config.hiddenSize),
    norm: source.vector(prefix + names.queryNorm, qLoraRank),
    expand: source.matrix(prefix + names.queryExpand, width, qLoraRank),
  };
}

function attention(
  source: WeightRequests,
  prefix: string,
  names: AttentionNames,
  config: ModelConfig,
): AttentionWeights {
  const { heads, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = config.attention;
  return {
    query: query(source, prefix, names, config),
    latent: source.matrix(prefix + names.latent, kvLoraRank + qkRopeHeadDim, config.hiddenSize),
    latentNorm: source.vector(prefix + names.latentNorm, kvLoraRank),
    kvB: source.matrix(prefix + names.latentExpand, heads * (qkNopeHeadDim + vHeadDim), kvLoraRank),
    output: source.matrix(prefix + names.output, config.hiddenSize, heads * vHeadDim),
  };
}

/** The experts' projections, from one tensor each for all of them or from one per expert. */
function stackedExperts(
  source: WeightRequests,
  prefix: string,
  names: ExpertNames,
  experts: ExpertsConfig,
  hidden: number,
) {
  const { count, intermediateSize } = experts;
  const { fused, expert } = names;
  if (source.has(prefix + fused.gateUp)) {
    const stack = (name: string, rows: number, columns: number) =>
      source.stack([prefix + name], [count, rows, columns], prefix + name);
    return {
      gateUp: { layout: "fused", gateUp: stack(fused.gateUp, 2 * intermediateSize, hidden) },
      down: stack(fused.down, hidden, intermediateSize),
    } as const;
  }
  const stack = (name: string, rows: number, columns: number) => {
    const all = Array.from({ length: count }, (_, index) => prefix + name.replace("%d", String(index)));
    return source.stack(all, [rows, columns], prefix + name);
  };
  return {
    gateUp: {
      layout: "separate",
      gate: stack(expert.gate, intermediateSize, hidden),
      up: stack(expert.up, intermediateSize, hidden),
    },
    down: stack(expert.down, hidden, intermediateSize),
  } as const;
}

function sparseMlp(
  source: WeightRequests,
  prefix: string,
  names: ExpertNames,
  { experts, hiddenSize }: ModelConfig,
): SparseMlpWeights {
  const { count, sharedCount, intermediateSize, router } = experts!;
  return {
    kind: "sparse",
    router: source.matrix(prefix + names.router, count, hiddenSize),
    correctionBias: router.correctionBias ? source.vector(prefix + names.correctionBias, count) : null,
    ...stackedExperts(source, prefix, names, experts!, hiddenSize),
    shared:
      sharedCount === 0
        ? null
        : gatedMlp(source, prefix, names.shared, hiddenSize, sharedCount * intermediateSize),
  };
}

function layer(
  source: WeightRequests,
  prefix: string,
  names: CheckpointNames,
  config: ModelConfig,
  index: number,
) {
  const { hiddenSize, intermediateSize } = config;
  const isDense = config.mlpLayers[index] === "dense";
  return {
    inputNorm: source.vector(prefix + names.inputNorm, hiddenSize),
    attention: attention(source, prefix, names.attention, config),
    mlpNorm: source.vector(prefix + names.mlpNorm, hiddenSize),
    mlp: isDense
      ? { kind: "dense" as const, ...gatedMlp(source, prefix, names.dense, hiddenSize, intermediateSize) }
      : sparseMlp(source, prefix, names.sparse!, config),
  };
}

/**
 * Reserves every weight of the model that `config` describes. Throws UserError for a tensor that is missing or of
 * another shape or type. The contents come with `source.load`.
 */
export function requestWeights(source: WeightRequests, config: ModelConfig): ModelWeights {
  const { names } = architectures[config.modelType];
  const prefix = names.prefixes.find((candidate) => source.has(candidate + names.embedding));
  if (prefix === undefined) {
    throw new UserError(
      `the checkpoint has no tensor ${names.prefixes[0]}${names.embedding}, which every ${config.modelType} model has; ` +
        "its weights and its config.json do not belong together",
    );
  }
  const { vocabSize, hiddenSize } = config;
  const embedding = source.matrix(prefix + names.embedding, vocabSize, hiddenSize);
  const layers = Array.from({ length: config.numLayers }, (_, index) =>
    layer(source, prefix + names.layer.replace("%d", String(index)), names, config, index),
  );
  const norm = source.vector(prefix + names.norm, hiddenSize);
  if (config.tieWordEmbeddings) return { embedding, layers, norm, head: embedding };
  const head = names.head.find((name) => source.has(name)) ?? names.head[0]!;
  return { embedding, layers, norm, head: source.matrix(head, vocabSize, hiddenSize) };
}
