import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { bf16ToF32, f32ToBf16 } from "../../src/base/bf16.ts";
import type { Device } from "../../src/device/device.ts";
import { openLanguageModel } from "../../src/engine/language-model.ts";
import { promptLogits } from "../../src/engine/prompt-logits.ts";
import { referenceLogits } from "../../src/models/reference.ts";
import { type TestDevice, testDevices } from "../fixtures/devices.ts";
import { forcedLogits, greedyIds } from "./decoding.ts";
import {
  argmax,
  cosine,
  type GoldenCase,
  type GoldenModel,
  goldenNames,
  openGolden,
  readTensors,
  worstDifference,
} from "./golden-models.ts";

const cases: readonly (readonly [length: number, index: number])[] = [
  [1, 0],
  [7, 1],
  [64, 2],
  [201, 3],
];

/** How far the largest logit stands above the second. */
function margin(logits: Float32Array): number {
  const best = argmax(logits);
  return logits[best]! - Math.max(...logits.filter((_, id) => id !== best));
}

/**
 * The rows, of the last prompt positions and 23 steps, whose logits are turned away from the golden ones by storing the
 * cache in bf16 alone, all else in float64. It happens where two experts are almost equally likely, and only there.
 */
function farByRoundingAlone({ folder, config }: GoldenModel, golden24: GoldenCase): number[] {
  if (config.experts === null) return [];
  const { prompt, greedyIds, promptLogits: expected, greedyLogits } = golden24;
  const tensors = readTensors(`${folder}/model.safetensors`);
  const weights = {
    has: (tensor: string) => tensors.has(tensor),
    get: (tensor: string) => tensors.get(tensor) as Float32Array,
  };
  const first = prompt.length - expected.length;
  const positions = Array.from({ length: expected.length + 23 }, (_, i) => first + i);
  const ids = [...prompt, ...greedyIds.slice(0, 23)];
  const store = (value: number) => bf16ToF32(f32ToBf16(value));
  const logits = referenceLogits({ config, weights, ids, positions, store });
  const rows = [...expected, ...greedyLogits.slice(1)];
  return [...rows.keys()].filter((row) => cosine(logits[row]!, rows[row]!) < 0.9995);
}

/** One variant of the CPU, which the kernels' own tests hold to the others, and WebGPU with the least and the most that is here. */
const devices = testDevices.filter(({ name }) =>
  ["cpu relaxed, 2 threads", "webgpu portable", "webgpu all features"].includes(name),
);
const models = goldenNames.flatMap((name) => devices.map((device) => [name, device.name, device] as const));

// A software adapter compiles its kernels in the first case, which takes it a minute on a busy machine.
vi.setConfig({ testTimeout: 400_000, hookTimeout: 400_000 });

describe.each(models)(
  "%s on %s against transformers",
  (name, _device, { open: openTestDevice }: TestDevice) => {
    let golden: GoldenModel;
    let device: Device;
    beforeAll(async () => {
      golden = openGolden(name);
      device = await openTestDevice();
    });
    afterAll(async () => {
      golden.close();
      await device.close();
    });

    const open = (cacheDtype: "f32" | "bf16", maxChunkTokens: number) =>
      openLanguageModel(golden.folder, {
        device,
        cacheDtype,
        maxContext: 256,
        maxChunkTokens,
        maxDecodeRows: 4,
      });

    it.each(cases)("prompt=%i greedy=24 cache=f32: logits within 2e-3, ids equal", async (_, index) => {
      const model = await open("f32", 48);
      const golden24 = golden.cases[index]!;
      const { prompt, promptLogits: expected, greedyLogits } = golden24;
      const got = await promptLogits(model.runner, prompt, expected.length);
      expect(Math.max(...got.map((row, i) => worstDifference(row, expected[i]!)))).toBeLessThan(2e-3);
      const forced = await forcedLogits(model, golden24.prompt, golden24.greedyIds);
      expect(forced).toHaveLength(greedyLogits.length);
      expect(Math.max(...forced.map((row, i) => worstDifference(row, greedyLogits[i]!)))).toBeLessThan(2e-3);
      expect(await greedyIds(model, prompt, 24)).toEqual(golden24.greedyIds);
      model.close();
    });

    it.each(cases)("prompt=%i greedy=24 cache=bf16: cosine 0.9995, ids by margin", async (_, index) => {
      const model = await open("bf16", 256);
      const golden24 = golden.cases[index]!;
      const { prompt, promptLogits: expected, greedyLogits, greedyIds: ids } = golden24;
      const got = await promptLogits(model.runner, prompt, expected.length);
      const forced = await forcedLogits(model, golden24.prompt, golden24.greedyIds);
      model.close();
      const close = got.map((row, i) => cosine(row, expected[i]!) >= 0.9995);
      close.push(...forced.slice(1).map((row, i) => cosine(row, greedyLogits[i + 1]!) >= 0.9995));
      const far = [...close.keys()].filter((row) => !close[row]);
      if (far.length > 0) expect(farByRoundingAlone(golden, golden24)).toEqual(expect.arrayContaining(far));
      const steps = [...ids.keys()].filter((step) => margin(greedyLogits[step]!) > 0.1);
      const clear = steps.filter((step) => close[expected.length - 1 + step]);
      expect(clear.map((step) => argmax(forced[step]!))).toEqual(clear.map((step) => ids[step]!));
    });

    it("gives every byte of device memory back", async () => {
      const before = device.memory.usedBytes;
      const model = await open("bf16", 64);
      await greedyIds(model, [1, 2, 3], 24);
      model.close();
      expect(device.memory.usedBytes).toBe(before);
    });
  },
);
