import { expect, it } from "vitest";
import { dependsOnOutput, LogitsRules } from "./logits-rules.ts";
import { checkRequest, type GenerateRequest } from "./request.ts";

const VOCAB = 6;
const logits = () => Float32Array.of(2, -2, 4, -4, 0, 1);
const request = (more: Partial<GenerateRequest>) => checkRequest({ promptIds: [0, 1], ...more }, VOCAB);

/** The logits as they are drawn from after the ids of `output`. */
function adjusted(more: Partial<GenerateRequest>, output: number[], endIds: number[] = []): number[] {
  const rules = new LogitsRules(request(more), endIds, null);
  output.forEach((tokenId, index) => {
    rules.accept(index, tokenId);
  });
  const row = logits();
  rules.adjust(output.length)?.(row);
  return [...row];
}

it("a plain request asks for nothing", () => {
  const rules = new LogitsRules(request({ topK: 3, temperature: 0.5 }), [5], null);
  expect(rules.adjust(0)).toBeNull();
  expect(rules.accept(0, 3)).toBeNull();
});

it("repetitionPenalty: tokens of prompt and output, divided when positive, multiplied when negative", () => {
  expect(adjusted({ repetitionPenalty: 2 }, [3])).toEqual([1, -4, 4, -8, 0, 1]);
});

it("presencePenalty once, frequencyPenalty for each time, in the output alone", () => {
  expect(adjusted({ presencePenalty: 0.5 }, [2, 2, 3])).toEqual([2, -2, 3.5, -4.5, 0, 1]);
  expect(adjusted({ frequencyPenalty: 0.5 }, [2, 2, 3])).toEqual([2, -2, 3, -4.5, 0, 1]);
  expect(adjusted({ presencePenalty: -1, frequencyPenalty: -1 }, [5, 5])).toEqual([2, -2, 4, -4, 0, 4]);
});

it("all together: bias, then repetition, then frequency and presence", () => {
  const all = {
    logitBias: new Map([[2, 2]]),
    repetitionPenalty: 2,
    presencePenalty: 1,
    frequencyPenalty: 0.25,
  };
  expect(adjusted(all, [2, 2])).toEqual([1, -4, 6 / 2 - 0.5 - 1, -4, 0, 1]);
});

it("ends of output are ruled out before minTokens and allowed from then on", () => {
  expect(adjusted({ minTokens: 2 }, [3], [2, 5])).toEqual([2, -2, -Infinity, -4, 0, -Infinity]);
  expect(adjusted({ minTokens: 2 }, [3, 3], [2, 5])).toEqual([...logits()]);
});

it("log-probabilities are noted by place, of the logits before any rule, and each is given once", () => {
  const rules = new LogitsRules(request({ logprobs: 1, logitBias: new Map([[4, 50]]) }), [], null);
  const row = logits();
  rules.adjust(7)?.(row);
  expect(row[4]).toBe(50);
  expect(rules.accept(7, 4)?.top[0]?.tokenId).toBe(2);
  expect(rules.accept(7, 4)).toBeNull();
});

it("penalties and constraints depend on the output, biases and minTokens do not", () => {
  const constraint = () => ({ mask: () => undefined, accept: () => undefined });
  for (const more of [
    { repetitionPenalty: 1.1 },
    { presencePenalty: 1 },
    { frequencyPenalty: 1 },
    { constraint },
  ])
    expect(dependsOnOutput(request(more))).toBe(true);
  expect(dependsOnOutput(request({ minTokens: 3, logitBias: new Map([[1, 1]]), logprobs: 2 }))).toBe(false);
});
