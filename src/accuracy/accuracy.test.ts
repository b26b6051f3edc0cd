import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { changedDevice } from "../../tests/fixtures/changed-device.ts";
import { UserError } from "../base/errors.ts";
import type { Device } from "../device/device.ts";
import { openDevice } from "../device/open.ts";
import { readModelConfig } from "../formats/model-folder.ts";
import { mlaRowReference } from "../kernels/mla-decode/reference.ts";
import { accumulationErrors } from "./accumulation.ts";
import { attentionTruth } from "./attention-truth.ts";
import { fitGrowth, predictError } from "./growth-law.ts";
import { attentionError, measureAttention } from "./measure-attention.ts";
import { type ModelEffectOptions, measureModelEffect, samePrefix } from "./model-effect.ts";
import { createStream, streamNames } from "./streams.ts";
import { runStudy } from "./study.ts";

const shape = { length: 300, latentWidth: 128, ropeWidth: 32, heads: 3, seed: 7 };
let device: Device;
beforeAll(async () => {
  device = await openDevice({ kind: "cpu", threads: 1, poison: true });
});
afterAll(() => device.close());

const entriesOf = (stream: ReturnType<typeof createStream>) => {
  const entries: Float32Array[] = [];
  stream.visit((entry) => entries.push(entry.slice()));
  return entries;
};

describe("streams", () => {
  it.each(streamNames)("%s: the same tokens at every visit", (name) => {
    const stream = createStream(name, shape);
    const entries = entriesOf(stream);
    expect(entries).toHaveLength(300);
    expect(entriesOf(stream)).toEqual(entries);
    expect(entries[1]).not.toEqual(entries[2]);
  });
  const weightsOf = (name: (typeof streamNames)[number], length: number) => {
    const stream = createStream(name, { ...shape, length });
    const query = stream.queries.subarray(0, 160);
    const scores = entriesOf(stream).map(
      (entry) => entry.reduce((dot, value, i) => dot + value * query[i]!, 0) * stream.softmaxScale,
    );
    const sum = scores.reduce((total, score) => total + Math.exp(score), 0);
    return scores.map((score) => Math.exp(score) / sum);
  };
  it("far needle: the first of all tokens has most of the weight, at any length", () => {
    for (const length of [300, 3000]) {
      expect(weightsOf("far needle", length)[0]).toBeGreaterThan(0.8);
    }
  });
  it("all equal: every token weighs the same", () => {
    for (const weight of weightsOf("all equal", 300)) expect(weight).toBeCloseTo(1 / 300, 12);
  });
  it("realistic: peaks over a background", () => {
    const weights = weightsOf("realistic", 3000).sort((a, b) => b - a);
    expect(weights[0]).toBeLessThan(0.9);
    expect(weights.slice(0, 300).reduce((sum, weight) => sum + weight)).toBeGreaterThan(0.5);
  });
  it("outliers: four channels of another size", () => {
    const largest = entriesOf(createStream("outliers", shape))
      .slice(1)
      .reduce(
        (most, entry) => most.map((value, i) => Math.max(value, Math.abs(entry[i]!))),
        new Float32Array(160),
      );
    expect([...largest].filter((value) => value > 25)).toHaveLength(4);
  });
});

it.each(streamNames)("truth of %s: that of the kernel's reference", (name) => {
  const stream = createStream(name, shape);
  const truth = attentionTruth(stream, shape);
  const tokens = entriesOf(stream);
  for (let row = 0; row < 3; row++) {
    const query = stream.queries.subarray(row * 160, (row + 1) * 160);
    const expected = mlaRowReference({ query, tokens, latentWidth: 128, softmaxScale: stream.softmaxScale });
    expect(truth.lse[row]).toBeCloseTo(expected.lse, 11);
    for (let i = 0; i < 128; i++) expect(truth.out[row * 128 + i]).toBeCloseTo(expected.out[i]!, 11);
  }
});

it("error: root mean square of rows, by hand", () => {
  const truth = { out: Float64Array.of(3, 4, 0, 2), lse: Float64Array.of(1, 2) };
  const error = attentionError({ out: [3, 4.5, 0, 1], lse: [1.5, 2] }, truth);
  expect(error.out).toBeCloseTo(Math.sqrt((0.1 ** 2 + 0.5 ** 2) / 2), 12);
  expect(error.worstOut).toBeCloseTo(0.5, 12);
  expect(error.lse).toBeCloseTo(0.5 / Math.SQRT2, 12);
  expect(attentionError({ out: [Number.NaN, 0, 0, 0], lse: [1, 2] }, truth).out).toBeNaN();
});

it("formats on the device: f32 rounds least, f16 less than bf16, fp8 most", async () => {
  const stream = createStream("realistic", shape);
  const truth = attentionTruth(stream, shape);
  const errors: number[] = [];
  for (const dtype of ["f32", "f16", "bf16", "fp8"] as const) {
    errors.push((await measureAttention(device, stream, shape, dtype, truth)).out);
  }
  expect(errors).toEqual([...errors].sort((a, b) => a - b));
  expect(errors[0]).toBeLessThan(3e-6);
  expect(errors[2]).toBeGreaterThan(1e-4);
  expect(errors[3]).toBeLessThan(0.2);
  expect(device.memory.usedBytes).toBe(0);
});

it("accumulators: 16-bit sums fail where every token counts, float32 does not", () => {
  const long = { ...shape, length: 20_000 };
  const errors = accumulationErrors(createStream("all equal", long), long);
  expect(errors.float32).toBeLessThan(1e-4);
  expect(errors.float32).toBeGreaterThan(0);
  expect(errors["float32, 16 splits"]).toBeLessThan(errors.float32);
  expect(errors.bf16).toBeGreaterThan(0.5);
  expect(errors.f16).toBeLessThan(errors.bf16);
});

describe("growth", () => {
  it("of an exact power law", () => {
    const law = fitGrowth([1, 10, 100, 1000].map((length) => ({ length, error: 3 * length ** 0.5 })))!;
    expect(law.scale).toBeCloseTo(3, 10);
    expect(law.exponent).toBeCloseTo(0.5, 10);
    expect(law.fit).toBeCloseTo(1, 10);
    expect(predictError(law, 4)).toBeCloseTo(6, 10);
  });
  it("of points off it: by hand", () => {
    // logs: (0, 0), (1, 1), (2, 0): no slope, mean 1/3, nothing explained
    const law = fitGrowth([0, 1, 2].map((x) => ({ length: Math.exp(x), error: Math.exp(x === 1 ? 1 : 0) })))!;
    expect(law.exponent).toBeCloseTo(0, 10);
    expect(law.scale).toBeCloseTo(Math.exp(1 / 3), 10);
    expect(law.fit).toBeCloseTo(0, 10);
  });
  it("needs three points that are not 0", () => {
    expect(fitGrowth([1, 2, 3].map((length) => ({ length, error: length === 1 ? 0 : 1 })))).toBe(null);
  });
});

describe("a study", () => {
  const options = () => ({
    ...{ devices: [device], lengths: [64, 130], streams: ["realistic", "far needle"] as const },
    ...{ dtypes: ["f32", "bf16"] as const, deadline: Number.POSITIVE_INFINITY },
    widths: { latentWidth: 128, ropeWidth: 32, heads: 2 },
  });
  it("has a row of every stream, length and format, and counts its way", async () => {
    const seen: [number, number][] = [];
    const study = await runStudy({ ...options(), onProgress: (done, total) => seen.push([done, total]) });
    expect(study.attention).toHaveLength(8);
    expect(study.accumulation).toHaveLength(2 * 5);
    expect(study.skipped).toEqual([]);
    expect(seen.at(-1)).toEqual([1164, 1164]);
    for (const { out, lse } of study.attention) expect(Number.isFinite(out + lse)).toBe(true);
  });
  it("keeps what was finished when the time is over, and names the rest", async () => {
    const study = await runStudy({ ...options(), deadline: performance.now() - 1 });
    expect(study.attention).toEqual([]);
    expect(study.skipped).toHaveLength(4);
    expect(study.skipped[0]!.reason).toContain("time limit");
  });
  it("leaves out a context that would not be done in time, by the pace of those before it", async () => {
    const lengths = [1024, 2 ** 22];
    const deadline = performance.now() + 4000;
    const study = await runStudy({ ...options(), streams: ["realistic"], lengths, deadline });
    expect(study.attention.map(({ length }) => length)).toEqual([1024, 1024]);
    expect(study.skipped[0]!.what).toBe("realistic, 4194304 tokens");
    expect(study.skipped[0]!.reason).toMatch(/^it takes \d+ s .* leaves [0-4]; raise --time-limit$/);
  });
  it("names a context that does not fit the device", async () => {
    const full = changedDevice(device, {
      allocate: () => {
        throw new Error("no room");
      },
    });
    const study = await runStudy({ ...options(), devices: [full], lengths: [64] });
    expect(study.attention).toEqual([]);
    expect(study.skipped[0]).toEqual({ what: "realistic, 64 tokens, cpu f32", reason: "no room" });
  });
  it("stops at a signal, and keeps what was finished", async () => {
    const controller = new AbortController();
    const onProgress = (done: number) => (done >= 128 ? controller.abort() : undefined);
    const study = await runStudy({ ...options(), signal: controller.signal, onProgress });
    expect(study.attention.map(({ dtype }) => dtype)).toEqual(["f32"]);
    expect(study.skipped[0]).toEqual({
      what: "realistic, 64 tokens, cpu bf16",
      reason: "stopped by Ctrl-C",
    });
    expect(study.attention.length + study.skipped.length).toBe(2 + 3);
  });
  it("measures every device on the same contexts", async () => {
    const study = await runStudy({ ...options(), devices: [device, device], lengths: [64] });
    expect(study.attention).toHaveLength(8);
    expect(study.attention[2]).toEqual(study.attention[0]);
  });
});

describe("a model", () => {
  const folder = fileURLToPath(new URL("../../models/shakespeare-mla", import.meta.url));
  const measure = async (changes: Partial<ModelEffectOptions>) =>
    measureModelEffect({
      ...{ device, folder, config: await readModelConfig(folder), bytes: 1000, dtypes: ["f32", "fp8"] },
      ids: Array.from({ length: 400 }, (_, i) => 3 + ((i * 37) % 900)),
      ...{ deadline: Number.POSITIVE_INFINITY, ...changes },
    });

  it("an fp8 cache moves perplexity a little, f32 agrees with itself", async () => {
    const { effects, skipped } = await measure({});
    const [exact, rounded] = effects;
    expect(skipped).toEqual([]);
    expect(exact).toMatchObject({
      agreement: 1,
      sameTokens: 64,
      sameContinuations: 1,
      bytesPerTokenAndLayer: 1152,
    });
    expect(rounded!.bytesPerTokenAndLayer).toBe(328);
    expect(rounded!.perplexity).not.toBe(exact!.perplexity);
    expect(rounded!.perplexity / exact!.perplexity).toBeCloseTo(1, 0);
    expect(rounded!.agreement).toBeGreaterThan(0.7);
    expect(exact!.bitsPerByte).toBeCloseTo((Math.log2(exact!.perplexity) * 400) / 1000, 9);
    expect(samePrefix([1, 2, 3], [1, 2, 4])).toBe(2);
  });
  it("keeps the formats that were done when it is stopped, and names the others", async () => {
    const controller = new AbortController();
    const onToken = (done: number) => (done > 400 ? controller.abort() : undefined);
    const { effects, skipped } = await measure({ signal: controller.signal, onToken });
    expect(effects.map(({ dtype }) => dtype)).toEqual(["f32"]);
    expect(skipped).toEqual([{ what: "the model, fp8", reason: "stopped by Ctrl-C" }]);
    expect(device.memory.usedBytes).toBe(0);
  });
  it("names every format when the time is over, or the device has no room", async () => {
    const late = await measure({ deadline: performance.now() - 1 });
    expect(late.effects).toEqual([]);
    expect(late.skipped.map(({ reason }) => reason)).toEqual(
      Array(2).fill("the time limit was reached; raise --time-limit"),
    );
    const refuse = () => {
      throw new UserError("no room");
    };
    const full = changedDevice(device, { allocate: refuse });
    const { skipped } = await measure({ device: full });
    expect(skipped[0]).toEqual({ what: "the model, f32", reason: "no room" });
    expect(skipped[1]!.reason).toBe("f32 could not be measured to compare it with");
  });
});
