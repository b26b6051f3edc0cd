/** The model types whose checkpoints can be run, as `model_type` in config.json. */
export const modelTypes = [
  "deepseek_v2",
  "deepseek_v3",
  "minicpm3",
  "glm4_moe_lite",
  "youtu",
  "mistral4",
] as const;

/** One of {@link modelTypes}. */
export type ModelType = (typeof modelTypes)[number];

/** Whether the MLP of a layer is one gated MLP or routed experts. */
export type MlpKind = "dense" | "sparse";

/** A config.json in one spelling, whatever its age and model type. */
export interface ModelConfig {
  readonly modelType: ModelType;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly numLayers: number;
  /** Epsilon of the norms over the hidden state; those over the latents have {@link AttentionConfig.latentNormEps}. */
  readonly rmsNormEps: number;
  readonly maxPositionEmbeddings: number;
  readonly tieWordEmbeddings: boolean;
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
  /**
   * The token whose embedding is zeros whatever the file holds, in the tied head too: youtu's padding token, unless it
   * also begins or ends texts. transformers 5.17 zeroes that row when it loads this type alone.
   */
  readonly zeroEmbeddingId: number | null;
  readonly attention: AttentionConfig;
  readonly rope: RopeConfig;
  /** One entry per layer. */
  readonly mlpLayers: readonly MlpKind[];
  /** Width of a dense MLP. */
  readonly intermediateSize: number;
  /** Null when no layer is sparse. */
  readonly experts: ExpertsConfig | null;
  readonly scaling: ScalingConfig;
}

/** The widths of multi-head latent attention: h heads, d_c, d_r, d_n and d_v as docs/mla.md names them. */
export interface AttentionConfig {
  /** h */
  readonly heads: number;
  /** Rank of the query projection; null when it is a single matrix. */
  readonly qLoraRank: number | null;
  /** d_c */
  readonly kvLoraRank: number;
  /** d_n */
  readonly qkNopeHeadDim: number;
  /** d_r */
  readonly qkRopeHeadDim: number;
  /** d_v */
  readonly vHeadDim: number;
  /** Epsilon of the norms over the query and key-value latents: 1e-6 in every type, whatever `rms_norm_eps` says. */
  readonly latentNormEps: number;
  /** Which channels of a rotary vector form pair i: (2i, 2i+1), or (i, i + d_r/2). */
  readonly rotary: "interleaved" | "halves";
  /** Mistral 4: queries at position p are multiplied by 1 + beta · ln(1 + floor(p / originalMaxPositions)). */
  readonly queryScaling: { readonly beta: number; readonly originalMaxPositions: number } | null;
}

interface RopeBase {
  readonly theta: number;
  /** The softmax scale is multiplied by (0.1 · mscaleAllDim · ln(factor) + 1)²; null leaves it alone. */
  readonly mscaleAllDim: number | null;
}

/** How the rotary frequencies come about; src/models/rope.ts computes them. */
export type RopeConfig =
  | { readonly theta: number; readonly type: "default" }
  | LinearRope
  | YarnRope
  | LongRope;

/** Every frequency divided by `factor`. */
export interface LinearRope extends RopeBase {
  readonly type: "linear";
  readonly factor: number;
}

/** Frequencies blended between extrapolation and interpolation (arXiv 2309.00071). */
export interface YarnRope extends RopeBase {
  readonly type: "yarn";
  readonly factor: number;
  readonly originalMaxPositions: number;
  readonly betaFast: number;
  readonly betaSlow: number;
  /** Whether the blend's borders are rounded to whole channels. */
  readonly truncate: boolean;
  /** Multiplies cos and sin; null derives it from factor, mscale and mscaleAllDim. */
  readonly attentionFactor: number | null;
  readonly mscale: number | null;
}

/** A divisor per frequency, another one past the original context (arXiv 2402.13753). */
export interface LongRope extends RopeBase {
  readonly type: "longrope";
  readonly factor: number;
  readonly originalMaxPositions: number;
  /** [qkRopeHeadDim / 2], for contexts up to `originalMaxPositions`. */
  readonly shortFactor: readonly number[];
  /** [qkRopeHeadDim / 2], for longer ones. */
  readonly longFactor: readonly number[];
  /** Multiplies cos and sin; null derives it from factor and originalMaxPositions. */
  readonly attentionFactor: number | null;
}

/** Routed experts of the sparse layers. */
export interface ExpertsConfig {
  readonly count: number;
  readonly perToken: number;
  /** Width of one expert; the shared experts are one MLP of `sharedCount` times that width. */
  readonly intermediateSize: number;
  readonly sharedCount: number;
  readonly router: RouterConfig;
}

/** How a token's experts and their weights come from the router's logits. */
export interface RouterConfig {
  readonly scoring: "softmax" | "sigmoid";
  /** Top experts overall, or within the best groups by their best expert, or by the sum of their best two. */
  readonly selection: "greedy" | "group-max" | "group-top2";
  readonly groups: number;
  readonly groupsPerToken: number;
  /** Whether a learned bias per expert is added to the scores for choosing, not for weighing. */
  readonly correctionBias: boolean;
  /** Whether the chosen scores are divided by their sum (+ 1e-20). */
  readonly normalise: boolean;
  /** Multiplies the weights last. */
  readonly scale: number;
}

/** MiniCPM's multipliers; 1 in the other types. */
export interface ScalingConfig {
  /** Of the embeddings. */
  readonly embedding: number;
  /** Of each branch before it is added to the residual stream. */
  readonly residual: number;
  /** Of the last hidden state before the head. */
  readonly logits: number;
}
