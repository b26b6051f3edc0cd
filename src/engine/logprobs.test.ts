import { expect, it } from "vitest";
import { createRandom } from "../base/random.ts";
import { logprobsOf } from "./logprobs.ts";

it.each([1, 5, 300])("vocab=%i: as by sorting, equal logits by id", (vocab) => {
  const random = createRandom(vocab);
  const logits = Float32Array.from({ length: vocab }, () => Math.round(random.normal() * 4));
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
  const order = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b);
  for (const count of [0, 1, 20]) {
    const { tokenId, logprob, top } = logprobsOf(logits, vocab - 1, count);
    expect(tokenId).toBe(vocab - 1);
    expect(logprob).toBeCloseTo(Math.log(Math.exp(logits[vocab - 1]!) / total), 10);
    expect(top.map((one) => one.tokenId)).toEqual(order.slice(0, count));
  }
});

it("logits far apart, and tokens that are ruled out", () => {
  const logits = Float32Array.of(1000, Number.NEGATIVE_INFINITY, 998);
  const { logprob, top } = logprobsOf(logits, 1, 3);
  expect(logprob).toBe(Number.NEGATIVE_INFINITY);
  expect(top.map(({ tokenId }) => tokenId)).toEqual([0, 2, 1]);
  expect(top[0]!.logprob).toBeCloseTo(-Math.log1p(Math.exp(-2)), 12);
});
