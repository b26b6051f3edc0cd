import type { LongRope, ModelConfig, RopeConfig, YarnRope } from "../formats/config-types.ts";

/** YaRN's magnitude scale, 0.1 · mscale · ln(factor) + 1, or 1 for a factor of at most 1. */
function magnitudeScale(factor: number, mscale: number): number {
  return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
}

/**
 * YaRN (arXiv 2309.00071): channels that turn more than betaFast times within the original context keep their
 * frequency, those that turn less than betaSlow times are divided by factor, those between are blended.
 */
function yarnFrequencies(rope: YarnRope, dim: number): Float64Array {
  const { theta, factor, originalMaxPositions, betaFast, betaSlow, truncate } = rope;
  const channelTurning = (turns: number) =>
    (dim * Math.log(originalMaxPositions / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
  const first = channelTurning(betaFast);
  const last = channelTurning(betaSlow);
  const low = Math.max(truncate ? Math.floor(first) : first, 0);
  const high = Math.min(truncate ? Math.ceil(last) : last, dim - 1);
  const width = low === high ? 0.001 : high - low;
  return Float64Array.from({ length: dim / 2 }, (_, channel) => {
    const frequency = theta ** ((-2 * channel) / dim);
    const interpolated = Math.min(Math.max((channel - low) / width, 0), 1);
    return (frequency / factor) * interpolated + frequency * (1 - interpolated);
  });
}

function longFrequencies(rope: LongRope, dim: number, contextLength: number): Float64Array {
  const divisors = contextLength > rope.originalMaxPositions ? rope.longFactor : rope.shortFactor;
  return Float64Array.from(divisors, (divisor, channel) => rope.theta ** ((-2 * channel) / dim) / divisor);
}

/**
 * Radians per position of each of the `dim / 2` rotary pairs, in float64. `contextLength` is the longest context that
 * will be used: longrope takes its long divisors for the whole sequence when it passes the original one, so that cached
 * keys never need another rotation.
 */
export function inverseFrequencies(rope: RopeConfig, dim: number, contextLength: number): Float64Array {
  if (rope.type === "yarn") return yarnFrequencies(rope, dim);
  if (rope.type === "longrope") return longFrequencies(rope, dim, contextLength);
  const factor = rope.type === "linear" ? rope.factor : 1;
  return Float64Array.from(
    { length: dim / 2 },
    (_, channel) => rope.theta ** ((-2 * channel) / dim) / factor,
  );
}

/** What cos and sin are multiplied by: YaRN's ratio of magnitude scales, longrope's growth with the context, else 1. */
export function attentionFactor(rope: RopeConfig): number {
  if (rope.type === "yarn") {
    const { factor, mscale, mscaleAllDim } = rope;
    if (rope.attentionFactor !== null) return rope.attentionFactor;
    if (mscale === null || mscaleAllDim === null) return magnitudeScale(factor, 1);
    return magnitudeScale(factor, mscale) / magnitudeScale(factor, mscaleAllDim);
  }
  if (rope.type === "longrope") {
    if (rope.attentionFactor !== null) return rope.attentionFactor;
    if (rope.factor <= 1) return 1;
    return Math.sqrt(1 + Math.log(rope.factor) / Math.log(rope.originalMaxPositions));
  }
  return 1;
}

/** What query · key is multiplied by: (d_n + d_r)^-½, times the square of YaRN's magnitude scale over all dimensions. */
export function softmaxScale({ attention, rope }: Pick<ModelConfig, "attention" | "rope">): number {
  const scale = (attention.qkNopeHeadDim + attention.qkRopeHeadDim) ** -0.5;
  if (rope.type === "default" || rope.mscaleAllDim === null) return scale;
  return scale * magnitudeScale(rope.factor, rope.mscaleAllDim) ** 2;
}

/** What a query at `position` is multiplied by: Mistral 4's slow growth past the original context, else 1. */
export function queryScale(queryScaling: ModelConfig["attention"]["queryScaling"], position: number): number {
  if (queryScaling === null) return 1;
  return 1 + queryScaling.beta * Math.log(1 + Math.floor(position / queryScaling.originalMaxPositions));
}

/**
 * cos and sin of positions 0 … `positions` − 1 as [positions, d_r]: d_r / 2 cosines, then as many sines, the attention
 * factor in them; computed in float64 and rounded once.
 */
export function rotaryTable(
  config: Pick<ModelConfig, "attention" | "rope">,
  positions: number,
): Float32Array {
  const frequencies = inverseFrequencies(config.rope, config.attention.qkRopeHeadDim, positions);
  const factor = attentionFactor(config.rope);
  const half = frequencies.length;
  const table = new Float32Array(positions * half * 2);
  for (let position = 0; position < positions; position++) {
    const row = position * half * 2;
    for (let pair = 0; pair < half; pair++) {
      const angle = position * frequencies[pair]!;
      table[row + pair] = Math.cos(angle) * factor;
      table[row + half + pair] = Math.sin(angle) * factor;
    }
  }
  return table;
}

/** {@link queryScale} of positions 0 … `positions` − 1, or null where it is 1 throughout. */
export function queryScaleTable(
  config: Pick<ModelConfig, "attention">,
  positions: number,
): Float32Array | null {
  const { queryScaling } = config.attention;
  if (queryScaling === null || positions <= queryScaling.originalMaxPositions) return null;
  return Float32Array.from({ length: positions }, (_, position) => queryScale(queryScaling, position));
}
