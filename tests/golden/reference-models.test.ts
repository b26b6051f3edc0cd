import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { referenceLogits } from "../../src/models/reference.ts";
import type { GoldenModel } from "./golden-models.ts";
import {
  argmax,
  goldenNames,
  missingNames,
  openGolden,
  readTensors,
  worstDifference,
} from "./golden-models.ts";

describe.each(goldenNames)("the float64 reference of %s against transformers", (name) => {
  let model: GoldenModel;
  let tensors: Map<string, Float32Array | Int32Array>;
  beforeAll(() => {
    model = openGolden(name);
    tensors = readTensors(`${model.folder}/model.safetensors`);
  });
  afterAll(() => model.close());

  it.each([
    [1, 0],
    [7, 1],
    [64, 2],
    [201, 3],
  ])("prompt=%i greedy=24", (length, index) => {
    const { prompt, greedyIds, promptLogits, greedyLogits } = model.cases[index]!;
    expect(prompt).toHaveLength(length);
    const weights = {
      has: (tensor: string) => tensors.has(tensor),
      get: (tensor: string) => tensors.get(tensor) as Float32Array,
    };
    const first = length - promptLogits.length;
    const positions = Array.from({ length: promptLogits.length + 23 }, (_, i) => first + i);
    const ids = [...prompt, ...greedyIds.slice(0, 23)];
    const logits = referenceLogits({ config: model.config, weights, ids, positions });
    const expected = [...promptLogits, ...greedyLogits.slice(1)];
    expect(Math.max(...logits.map((row, i) => worstDifference(row, expected[i]!)))).toBeLessThan(1e-3);
    expect(logits.slice(promptLogits.length - 1).map(argmax)).toEqual(greedyIds);
  });
});

describe.skipIf(missingNames.length === 0)("models that only FLASHMLA_GOLDEN brings", () => {
  it.skip.each(missingNames)("%s", () => {});
});
