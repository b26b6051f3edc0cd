import type { OutputLogprob, TokenLogprob } from "./events.ts";

/**
 * The log-probability of `tokenId` and of the `count` likeliest tokens under softmax(logits), in float64, likeliest
 * first, equal ones by id.
 */
export function logprobsOf(logits: Float32Array, tokenId: number, count: number): OutputLogprob {
  const logSum = logSumExp(logits);
  const of = (id: number): TokenLogprob => ({ tokenId: id, logprob: logits[id]! - logSum });
  return { ...of(tokenId), top: largest(logits, count).map(of) };
}

function logSumExp(logits: Float32Array): number {
  let peak = Number.NEGATIVE_INFINITY;
  for (const logit of logits) if (logit > peak) peak = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - peak);
  return peak + Math.log(sum);
}

/** Ids of the `count` largest values, largest first. */
function largest(values: Float32Array, count: number): number[] {
  const ids: number[] = [];
  for (let id = 0; id < values.length && count > 0; id++) {
    if (ids.length === count && !(values[id]! > values[ids[count - 1]!]!)) continue;
    let at = ids.length;
    while (at > 0 && values[ids[at - 1]!]! < values[id]!) at--;
    ids.splice(at, 0, id);
    if (ids.length > count) ids.pop();
  }
  return ids;
}
