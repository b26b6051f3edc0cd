import type { ModelConfig } from "../formats/config-types.ts";
import { referenceRouter } from "./reference-router.ts";
import { attentionFactor, inverseFrequencies, queryScale, softmaxScale } from "./rope.ts";

/** The weights of a checkpoint by their names in the file, as float32 whatever they are stored in. */
export interface ReferenceWeights {
  has(name: string): boolean;
  get(name: string): Float32Array;
}

/** What {@link referenceLogits} computes from. */
export interface ReferenceInput {
  readonly config: ModelConfig;
  readonly weights: ReferenceWeights;
  /** Token ids [n] at positions 0 … n − 1. */
  readonly ids: readonly number[];
  /** The positions whose logits are wanted. */
  readonly positions: readonly number[];
  /** What storing a value in the cache makes of it, such as rounding to bf16; default: nothing. */
  readonly store?: (value: number) => number;
}

/** y [rows, out] = x [rows, in] · weightᵀ, with weight [out, in]. */
function linear(x: Float64Array, weight: Float32Array, rows: number): Float64Array {
  const width = x.length / rows;
  const out = weight.length / width;
  const y = new Float64Array(rows * out);
  for (let row = 0; row < rows; row++) {
    for (let o = 0; o < out; o++) {
      let sum = 0;
      for (let i = 0; i < width; i++) sum += x[row * width + i]! * weight[o * width + i]!;
      y[row * out + o] = sum;
    }
  }
  return y;
}

/** x / √(mean(x²) + epsilon) · weight for each row of weight's length. */
function rmsNorm(x: Float64Array, weight: Float32Array, epsilon: number): Float64Array {
  const width = weight.length;
  const y = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += width) {
    let squares = 0;
    for (let i = 0; i < width; i++) squares += x[start + i]! ** 2;
    const scale = 1 / Math.sqrt(squares / width + epsilon);
    for (let i = 0; i < width; i++) y[start + i] = x[start + i]! * scale * weight[i]!;
  }
  return y;
}

/** Turns `vector` [d_r] in place to `position`. */
function rotate(
  config: ModelConfig,
  frequencies: Float64Array,
  vector: Float64Array,
  position: number,
): void {
  const half = frequencies.length;
  const factor = attentionFactor(config.rope);
  const interleaved = config.attention.rotary === "interleaved";
  for (let pair = 0; pair < half; pair++) {
    const [i, j] = interleaved ? [2 * pair, 2 * pair + 1] : [pair, pair + half];
    const [a, b] = [vector[i]!, vector[j]!];
    const angle = position * frequencies[pair]!;
    vector[i] = (a * Math.cos(angle) - b * Math.sin(angle)) * factor;
    vector[j] = (b * Math.cos(angle) + a * Math.sin(angle)) * factor;
  }
}

/** Σ softmax(query · keys) values over tokens 0 … last of one head; keys [n, d_n + d_r], values [n, d_v]. */
function attend(
  query: Float64Array,
  keys: Float64Array[],
  values: Float64Array[],
  last: number,
): Float64Array {
  const scores: number[] = [];
  for (let t = 0; t <= last; t++) {
    scores.push(query.reduce((sum, value, i) => sum + value * keys[t]![i]!, 0));
  }
  const max = Math.max(...scores);
  const out = new Float64Array(values[0]!.length);
  let total = 0;
  for (let t = 0; t <= last; t++) {
    const weight = Math.exp(scores[t]! - max);
    total += weight;
    for (let i = 0; i < out.length; i++) out[i]! += weight * values[t]![i]!;
  }
  return out.map((value) => value / total);
}

/** The attention branch of a layer over the normed hidden states x [n, hidden]. */
function attention(input: ReferenceInput, x: Float64Array, prefix: string): Float64Array {
  const { config, weights, ids, store = (value) => value } = input;
  const { heads, qLoraRank, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim, latentNormEps } =
    config.attention;
  const n = ids.length;
  const weight = (name: string) => weights.get(`${prefix}.${name}.weight`);
  const frequencies = inverseFrequencies(config.rope, qkRopeHeadDim, n);
  const compressed =
    qLoraRank === null
      ? x
      : rmsNorm(linear(x, weight("q_a_proj"), n), weight("q_a_layernorm"), latentNormEps);
  const queries = linear(compressed, weight(qLoraRank === null ? "q_proj" : "q_b_proj"), n);
  const entries = linear(x, weight("kv_a_proj_with_mqa"), n);
  const latents = new Float64Array(n * kvLoraRank);
  const rotaryKeys: Float64Array[] = [];
  for (let t = 0; t < n; t++) {
    const entry = entries.slice(t * (kvLoraRank + qkRopeHeadDim), (t + 1) * (kvLoraRank + qkRopeHeadDim));
    latents.set(entry.subarray(0, kvLoraRank), t * kvLoraRank);
    rotaryKeys.push(entry.slice(kvLoraRank));
    rotate(config, frequencies, rotaryKeys[t]!, t);
    rotaryKeys[t] = rotaryKeys[t]!.map(store);
  }
  const normed = rmsNorm(latents, weight("kv_a_layernorm"), latentNormEps).map(store);
  const expanded = linear(normed, weight("kv_b_proj"), n);
  const out = new Float64Array(n * heads * vHeadDim);
  const queryWidth = qkNopeHeadDim + qkRopeHeadDim;
  for (let head = 0; head < heads; head++) {
    const keys: Float64Array[] = [];
    const values: Float64Array[] = [];
    for (let t = 0; t < n; t++) {
      const start = (t * heads + head) * (qkNopeHeadDim + vHeadDim);
      keys.push(Float64Array.of(...expanded.subarray(start, start + qkNopeHeadDim), ...rotaryKeys[t]!));
      values.push(expanded.slice(start + qkNopeHeadDim, start + qkNopeHeadDim + vHeadDim));
    }
    for (let t = 0; t < n; t++) {
      const query = queries.slice((t * heads + head) * queryWidth, (t * heads + head + 1) * queryWidth);
      rotate(config, frequencies, query.subarray(qkNopeHeadDim), t);
      const scale = softmaxScale(config) * queryScale(config.attention.queryScaling, t);
      const scaled = query.map((value) => value * scale);
      out.set(attend(scaled, keys, values, t), (t * heads + head) * vHeadDim);
    }
  }
  return linear(out, weight("o_proj"), n);
}

interface GatedMlp {
  readonly gate: Float32Array;
  readonly up: Float32Array;
  readonly down: Float32Array;
}

/** down(silu(gate(x)) · up(x)) */
function gatedMlp(x: Float64Array, { gate, up, down }: GatedMlp, rows: number): Float64Array {
  const ups = linear(x, up, rows);
  const gated = linear(x, gate, rows).map((value, i) => (value / (1 + Math.exp(-value))) * ups[i]!);
  return linear(gated, down, rows);
}

function denseMlp(weights: ReferenceWeights, prefix: string): GatedMlp {
  const weight = (name: string) => weights.get(`${prefix}.${name}_proj.weight`);
  return { gate: weight("gate"), up: weight("up"), down: weight("down") };
}

/** Expert `index`, stored by itself or within [experts, 2 · inter, hidden] (gate rows first) and [experts, hidden, inter]. */
function expertMlp({ config, weights }: ReferenceInput, prefix: string, index: number): GatedMlp {
  if (!weights.has(`${prefix}.gate_up_proj`)) return denseMlp(weights, `${prefix}.${index}`);
  const size = config.experts!.intermediateSize * config.hiddenSize;
  const gateUp = weights.get(`${prefix}.gate_up_proj`).subarray(index * 2 * size, (index + 1) * 2 * size);
  const down = weights.get(`${prefix}.down_proj`).subarray(index * size, (index + 1) * size);
  return { gate: gateUp.subarray(0, size), up: gateUp.subarray(size), down };
}

/** The MLP branch of a sparse layer: the chosen experts of each token, weighed, and the shared ones. */
function sparseMlp(input: ReferenceInput, x: Float64Array, prefix: string): Float64Array {
  const { weights, ids } = input;
  const { perToken, count, router, sharedCount } = input.config.experts!;
  const n = ids.length;
  const hidden = x.length / n;
  const logits = linear(x, weights.get(`${prefix}.gate.weight`), n);
  const bias = router.correctionBias ? weights.get(`${prefix}.gate.e_score_correction_bias`) : null;
  const out =
    sharedCount === 0
      ? new Float64Array(x.length)
      : gatedMlp(x, denseMlp(weights, `${prefix}.shared_experts`), n);
  for (let t = 0; t < n; t++) {
    const row = x.subarray(t * hidden, (t + 1) * hidden);
    const choices = referenceRouter(router, perToken, logits.subarray(t * count, (t + 1) * count), bias);
    for (const { expert, weight } of choices) {
      const y = gatedMlp(row, expertMlp(input, `${prefix}.experts`, expert), 1);
      for (let i = 0; i < hidden; i++) out[t * hidden + i]! += weight * y[i]!;
    }
  }
  return out;
}

/** The embeddings [vocab, hidden], the row of `zeroEmbeddingId` zeroed. */
function embeddingTable({ config, weights }: ReferenceInput): Float32Array {
  const table = weights.get("model.embed_tokens.weight");
  if (config.zeroEmbeddingId === null) return table;
  const start = config.zeroEmbeddingId * config.hiddenSize;
  return table.slice().fill(0, start, start + config.hiddenSize);
}

function embed({ config, ids }: ReferenceInput, table: Float32Array): Float64Array {
  const { hiddenSize, scaling } = config;
  return Float64Array.from({ length: ids.length * hiddenSize }, (_, i) => {
    return table[ids[Math.floor(i / hiddenSize)]! * hiddenSize + (i % hiddenSize)]! * scaling.embedding;
  });
}

/**
 * The logits [vocab] at each of `positions`, in float64 with plain loops and every head's keys and values expanded: the
 * truth that models on a device are held against. Sources: the model code of transformers 5.17 and docs/mla.md.
 */
export function referenceLogits(input: ReferenceInput): Float64Array[] {
  const { config, weights, ids, positions } = input;
  const { hiddenSize, rmsNormEps, scaling } = config;
  const table = embeddingTable(input);
  const x = embed(input, table);
  const add = (branch: Float64Array) => {
    for (let i = 0; i < x.length; i++) x[i]! += branch[i]! * scaling.residual;
  };
  config.mlpLayers.forEach((kind, layer) => {
    const prefix = `model.layers.${layer}`;
    const normed = (name: string) => rmsNorm(x, weights.get(`${prefix}.${name}.weight`), rmsNormEps);
    add(attention(input, normed("input_layernorm"), `${prefix}.self_attn`));
    const y = normed("post_attention_layernorm");
    const dense = kind === "dense";
    add(
      dense
        ? gatedMlp(y, denseMlp(weights, `${prefix}.mlp`), ids.length)
        : sparseMlp(input, y, `${prefix}.mlp`),
    );
  });
  const last = rmsNorm(x, weights.get("model.norm.weight"), rmsNormEps).map(
    (value) => value * scaling.logits,
  );
  const head = config.tieWordEmbeddings ? table : weights.get("lm_head.weight");
  return positions.map((t) => linear(last.subarray(t * hiddenSize, (t + 1) * hiddenSize), head, 1));
}
