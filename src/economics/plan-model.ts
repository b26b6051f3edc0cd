import type { AttentionConfig, ModelConfig } from "../formats/config-types.ts";

/** The routed experts of all sparse layers. */
export interface PlanExperts {
  /** Sparse layers. */
  readonly layers: number;
  /** Experts a layer. */
  readonly count: number;
  readonly perToken: number;
  /** Weights of one expert. */
  readonly weightsEach: number;
}

/** What the planner knows of a model: widths, and numbers of weights over all layers. */
export interface PlanModel {
  readonly name: string;
  readonly layers: number;
  readonly hiddenSize: number;
  /** h, d_c, d_n, d_r and d_v as docs/mla.md names them. */
  readonly attention: Pick<
    AttentionConfig,
    "heads" | "kvLoraRank" | "qkNopeHeadDim" | "qkRopeHeadDim" | "vHeadDim"
  >;
  readonly maxContext: number;
  /** Projections around attention. */
  readonly attentionWeights: number;
  /** Dense and shared MLPs and routers: what every token passes. */
  readonly mlpWeights: number;
  readonly headWeights: number;
  /** Embeddings, which are stored but hardly read; 0 when the head is tied to them. */
  readonly embeddingWeights: number;
  readonly experts: PlanExperts | null;
}

/**
 * Weights of one layer's projections: query d·h·(d_n+d_r), or d·r_q + r_q·h·(d_n+d_r) over a latent; d·(d_c+d_r) and
 * d_c·h·(d_n+d_v) for keys and values; h·d_v·d for the output.
 */
export function attentionWeightsOf(attention: AttentionConfig, hiddenSize: number): number {
  const { heads, qLoraRank, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = attention;
  const queryWidth = heads * (qkNopeHeadDim + qkRopeHeadDim);
  const query = qLoraRank === null ? hiddenSize * queryWidth : qLoraRank * (hiddenSize + queryWidth);
  const keysAndValues =
    hiddenSize * (kvLoraRank + qkRopeHeadDim) + kvLoraRank * heads * (qkNopeHeadDim + vHeadDim);
  return query + keysAndValues + heads * vHeadDim * hiddenSize;
}

/** Weights of a gated MLP: gate, up and down. */
const gatedMlp = (hiddenSize: number, width: number) => 3 * hiddenSize * width;

/** The planner's view of a config.json. Norms are left out: they are a ten-thousandth of the weights. */
export function planModelOf(name: string, config: ModelConfig): PlanModel {
  const { hiddenSize, numLayers: layers, vocabSize, experts, attention } = config;
  const sparse = config.mlpLayers.filter((kind) => kind === "sparse").length;
  const dense = (layers - sparse) * gatedMlp(hiddenSize, config.intermediateSize);
  const shared = experts
    ? sparse *
      (experts.sharedCount * gatedMlp(hiddenSize, experts.intermediateSize) + hiddenSize * experts.count)
    : 0;
  const routed = experts && {
    layers: sparse,
    count: experts.count,
    perToken: experts.perToken,
    weightsEach: gatedMlp(hiddenSize, experts.intermediateSize),
  };
  return {
    ...{ name, layers, hiddenSize, attention, maxContext: config.maxPositionEmbeddings },
    attentionWeights: layers * attentionWeightsOf(attention, hiddenSize),
    mlpWeights: dense + shared,
    headWeights: vocabSize * hiddenSize,
    embeddingWeights: config.tieWordEmbeddings ? 0 : vocabSize * hiddenSize,
    experts: routed,
  };
}

/** All weights of a model. */
export function totalWeights(model: PlanModel): number {
  const { experts } = model;
  const routed = experts === null ? 0 : experts.layers * experts.count * experts.weightsEach;
  return model.attentionWeights + model.mlpWeights + model.headWeights + model.embeddingWeights + routed;
}

/** Weights that one token passes through: all but the embeddings and the experts it is not routed to. */
export function activeWeights(model: PlanModel): number {
  const { experts } = model;
  const routed = experts === null ? 0 : experts.layers * experts.perToken * experts.weightsEach;
  return model.attentionWeights + model.mlpWeights + model.headWeights + routed;
}

/**
 * Expert weights that a step of `tokens` tokens reads: each token takes k of E experts a layer, so E·(1 − (1 − k/E)^tokens)
 * are touched if choices are even and independent.
 */
export function touchedExpertWeights({ experts }: PlanModel, tokens: number): number {
  if (experts === null) return 0;
  const share = 1 - (1 - experts.perToken / experts.count) ** tokens;
  return experts.layers * experts.weightsEach * experts.count * share;
}
