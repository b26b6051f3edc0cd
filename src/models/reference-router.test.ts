import { describe, expect, it } from "vitest";
import type { RouterConfig } from "../formats/config-types.ts";
import { referenceRouter } from "./reference-router.ts";

const plain: RouterConfig = {
  scoring: "softmax",
  selection: "greedy",
  groups: 1,
  groupsPerToken: 1,
  correctionBias: false,
  normalise: false,
  scale: 1,
};
/** Logits whose softmax is `probabilities`. */
const logits = (...probabilities: number[]) => Float64Array.from(probabilities, Math.log);

describe("referenceRouter", () => {
  it("softmax greedy, 2 of 4: the scores themselves, scaled", () => {
    const choices = referenceRouter({ ...plain, scale: 2 }, 2, logits(0.1, 0.4, 0.2, 0.3), null);
    expect(choices.map(({ expert }) => expert)).toEqual([1, 3]);
    expect(choices[0]!.weight).toBeCloseTo(0.8, 12);
    expect(choices[1]!.weight).toBeCloseTo(0.6, 12);
  });

  it("softmax normalised, 2 of 4: weights sum to the scale", () => {
    const choices = referenceRouter(
      { ...plain, normalise: true, scale: 3 },
      2,
      logits(0.1, 0.4, 0.2, 0.3),
      null,
    );
    expect(choices[0]!.weight).toBeCloseTo((3 * 4) / 7, 12);
    expect(choices[1]!.weight).toBeCloseTo((3 * 3) / 7, 12);
  });

  it("group-max, 2 of 6 in 1 of 3 groups: the group with the best expert, not the best pair", () => {
    const router = { ...plain, selection: "group-max", groups: 3, groupsPerToken: 1 } as const;
    const choices = referenceRouter(router, 2, logits(0.3, 0.01, 0.2, 0.19, 0.15, 0.15), null);
    expect(choices.map(({ expert }) => expert)).toEqual([0, 1]);
  });

  it("group-top2, 2 of 6 in 1 of 3 groups: the group with the best pair", () => {
    const router = { ...plain, selection: "group-top2", groups: 3, groupsPerToken: 1 } as const;
    const choices = referenceRouter(router, 2, logits(0.3, 0.01, 0.2, 0.19, 0.15, 0.15), null);
    expect(choices.map(({ expert }) => expert)).toEqual([2, 3]);
  });

  it("sigmoid with correction bias, 2 of 4: the bias chooses, the score weighs", () => {
    const router = { ...plain, scoring: "sigmoid", correctionBias: true } as const;
    const bias = Float32Array.of(0, 0, 2, 0);
    const choices = referenceRouter(router, 2, Float64Array.of(0, 3, -1, 1), bias);
    expect(choices.map(({ expert }) => expert)).toEqual([2, 1]);
    expect(choices[0]!.weight).toBeCloseTo(1 / (1 + Math.E), 12);
  });

  it("ties go to the lower index", () => {
    const choices = referenceRouter(plain, 2, Float64Array.of(1, 1, 1, 1), null);
    expect(choices.map(({ expert }) => expert)).toEqual([0, 1]);
  });
});
