import type { SamplingParams } from "./params.ts";

/** First word of Philox4x32-10 (Salmon et al. 2011) with key `seed` at counter (step, 0, 0, 0). */
export function philoxReference(seed: number, step: number): number {
  const word = 0xffffffffn;
  let counter: [bigint, bigint, bigint, bigint] = [BigInt(step), 0n, 0n, 0n];
  let key: [bigint, bigint] = [BigInt(seed) & word, BigInt(seed) >> 32n];
  for (let round = 0; round < 10; round++) {
    const a = counter[0] * 0xd2511f53n;
    const b = counter[2] * 0xcd9e8d57n;
    counter = [(b >> 32n) ^ counter[1] ^ key[0], b & word, (a >> 32n) ^ counter[3] ^ key[1], a & word];
    key = [(key[0] + 0x9e3779b9n) & word, (key[1] + 0xbb67ae85n) & word];
  }
  return Number(counter[0]);
}

/** Float64 probabilities [vocab] after temperature, top-k, top-p and min-p; 0 for what they drop. Temperature > 0. */
export function samplingReference(logits: ArrayLike<number>, params: SamplingParams): Float64Array {
  const values = Array.from(logits);
  const order = values.map((_, id) => id).sort((a, b) => values[b]! - values[a]! || a - b);
  const largest = values[order[0]!]!;
  const weight = (id: number) => Math.exp((values[id]! - largest) / params.temperature);
  const kept = params.topK > 0 ? order.slice(0, params.topK) : order;
  const topP = params.topP * kept.reduce((sum, id) => sum + weight(id), 0);
  const out = new Float64Array(values.length);
  let before = 0;
  for (const [rank, id] of kept.entries()) {
    if (rank > 0 && params.topP < 1 && before >= topP) break;
    if (weight(id) >= params.minP) out[id] = weight(id);
    before += weight(id);
  }
  const total = out.reduce((sum, value) => sum + value);
  return out.map((value) => value / total);
}
