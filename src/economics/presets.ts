import { checkInteger } from "../base/checks.ts";
import type { PlanModel } from "./plan-model.ts";

/** A dense model described by a few numbers. */
export interface PlainModel {
  /** All weights; the embeddings are not told apart, so every step reads them all. */
  readonly weights: number;
  readonly layers: number;
  readonly hiddenSize: number;
  readonly heads: number;
  /** Width of a head's key (d_n + d_r, so that a full cache is that of a plain multi-head model) and value. */
  readonly headDim: number;
  readonly kvLoraRank: number;
  readonly qkRopeHeadDim: number;
  readonly maxContext: number;
}

/** A planner's model from plain numbers. Throws RangeError for an impossible shape. */
export function plainModel(name: string, plain: PlainModel): PlanModel {
  for (const [field, value] of Object.entries(plain)) checkInteger(field, value, { min: 1 });
  if (plain.qkRopeHeadDim >= plain.headDim) {
    throw new RangeError(
      `qkRopeHeadDim must be less than headDim ${plain.headDim}, got ${plain.qkRopeHeadDim}`,
    );
  }
  const { heads, headDim, kvLoraRank, qkRopeHeadDim, layers, hiddenSize, maxContext, weights } = plain;
  const attentionWeights = layers * hiddenSize * (2 * heads * headDim + kvLoraRank + qkRopeHeadDim);
  const expansion = layers * kvLoraRank * heads * (2 * headDim - qkRopeHeadDim);
  if (attentionWeights + expansion > weights) {
    throw new RangeError(
      `weights must be at least the ${attentionWeights + expansion} of attention alone, got ${weights}`,
    );
  }
  return {
    ...{ name, layers, hiddenSize, maxContext },
    attention: {
      heads,
      kvLoraRank,
      qkNopeHeadDim: headDim - qkRopeHeadDim,
      vHeadDim: headDim,
      qkRopeHeadDim,
    },
    attentionWeights: attentionWeights + expansion,
    mlpWeights: weights - attentionWeights - expansion,
    ...{ headWeights: 0, embeddingWeights: 0, experts: null },
  };
}

/** The dense 7B of the published claims: 32 layers, 32 heads of 128, hidden size 4096. */
const dense7b = {
  ...{ weights: 7e9, layers: 32, hiddenSize: 4096, heads: 32, headDim: 128 },
  ...{ kvLoraRank: 512, qkRopeHeadDim: 64, maxContext: 131072 },
};

/** Models that need no config.json, by the name that `plan` takes. */
export const presets: Readonly<Record<string, PlanModel>> = {
  "7b": plainModel("7b", dense7b),
  "7b-d256": plainModel("7b-d256", { ...dense7b, kvLoraRank: 256 }),
  "deepseek-v2-lite": {
    ...{ name: "deepseek-v2-lite", layers: 27, hiddenSize: 2048, maxContext: 163840 },
    attention: { heads: 16, kvLoraRank: 512, qkNopeHeadDim: 128, qkRopeHeadDim: 64, vHeadDim: 128 },
    attentionWeights: 27 * (2048 * 3072 + 2048 * 576 + 512 * 4096 + 2048 * 2048),
    mlpWeights: 3 * 2048 * 10944 + 26 * (2 * 3 * 2048 * 1408 + 2048 * 64),
    ...{ headWeights: 102400 * 2048, embeddingWeights: 102400 * 2048 },
    experts: { layers: 26, count: 64, perToken: 6, weightsEach: 3 * 2048 * 1408 },
  },
  "deepseek-v3": {
    ...{ name: "deepseek-v3", layers: 61, hiddenSize: 7168, maxContext: 163840 },
    attention: { heads: 128, kvLoraRank: 512, qkNopeHeadDim: 128, qkRopeHeadDim: 64, vHeadDim: 128 },
    attentionWeights: 61 * (1536 * (7168 + 128 * 192) + 7168 * 576 + 512 * 128 * 256 + 128 * 128 * 7168),
    mlpWeights: 3 * 3 * 7168 * 18432 + 58 * (3 * 7168 * 2048 + 7168 * 256),
    ...{ headWeights: 129280 * 7168, embeddingWeights: 129280 * 7168 },
    experts: { layers: 58, count: 256, perToken: 8, weightsEach: 3 * 7168 * 2048 },
  },
};
