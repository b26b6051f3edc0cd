import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { deepseekV2Lite, deepseekV3, glm47Flash } from "../../tests/fixtures/published-configs.ts";
import { type BenchReport, createReport, type ReportOrigin } from "../bench/report.ts";
import { parseModelConfig } from "../formats/config.ts";
import { chartSpec } from "../report/chart.ts";
import { renderPage } from "../report/page.ts";
import { cacheBytesPerToken, cacheShards, decodeFlopsPerCachedToken, keyValueHeads } from "./cache-forms.ts";
import { calibrationOf } from "./calibration.ts";
import { capacityOf } from "./capacity.ts";
import { findGpu, type Gpu, parseGpus } from "./gpus.ts";
import { batchWithinLatency, type PlanInput, planDeployment, serviceTimes } from "./plan.ts";
import {
  activeWeights,
  attentionWeightsOf,
  type PlanModel,
  planModelOf,
  totalWeights,
  touchedExpertWeights,
} from "./plan-model.ts";
import { planPage } from "./plan-page.ts";
import { digits } from "./plan-tables.ts";
import { plainModel, presets } from "./presets.ts";
import {
  communicationSeconds,
  type Deployment,
  decodeStep,
  prefillStep,
  rooflineSeconds,
} from "./roofline.ts";
import { derivationsOf67, publishedCosts, scenarioAssumptions } from "./scenarios.ts";
import { sensitivityCharts } from "./sensitivity.ts";

const shippedFile = fileURLToPath(new URL("../../data/gpus.json", import.meta.url));
const shippedGpus = () => parseGpus(JSON.parse(readFileSync(shippedFile, "utf8")), shippedFile);

/** Round numbers: 100 GB, 1000 GB/s, 100 TFLOPS, a 10 GB/s link. */
const about = { url: "u", title: "t", date: "2026-11-24" };
const gpu: Gpu = {
  ...{ id: "round", name: "Round", memoryGB: 100, bandwidthGBs: 1000, bf16Tflops: 100, fp8Tflops: 200 },
  ...{ linkGBs: 10, specSource: about, pricePerHour: 2, priceSource: about },
};
/** 10 layers, 16 heads of 128 + 64 and 128, d_c 512; 1e9 weights of each kind. */
const model: PlanModel = {
  ...{ name: "round", layers: 10, hiddenSize: 1000, maxContext: 100_000 },
  attention: { heads: 16, kvLoraRank: 512, qkNopeHeadDim: 128, qkRopeHeadDim: 64, vHeadDim: 128 },
  ...{ attentionWeights: 1e9, mlpWeights: 1e9, headWeights: 1e9, embeddingWeights: 1e9 },
  experts: { layers: 5, count: 4, perToken: 1, weightsEach: 1e8 },
};
const full = { memory: 1, compute: 1 };
const deployment: Deployment = {
  ...{ gpu, tensorParallel: 1, weightDtype: "bf16", cacheDtype: "bf16", overheadSeconds: 0 },
  ...{ form: "latent", efficiency: { attention: full, weights: full } },
};
const load = {
  ...{ requestsPerSecond: 10, promptTokens: 1000, outputTokens: 100 },
  ...{ tokenLatencyMs: 1000, firstTokenLatencyMs: 1000, utilisation: 1 },
};
const input: PlanInput = { model, deployment, load, pricePerHour: 2 };

describe("weights", () => {
  it("of one layer's projections of DeepSeek-V2-Lite, by hand", () => {
    const { attention, hiddenSize } = parseModelConfig(deepseekV2Lite);
    // 2048·16·192 + 2048·576 + 512·16·256 + 16·128·2048
    expect(attentionWeightsOf(attention, hiddenSize)).toBe(6291456 + 1179648 + 2097152 + 4194304);
  });
  it.each([
    ["DeepSeek-V2-Lite", deepseekV2Lite, 15.7, 2.4],
    ["DeepSeek-V3", deepseekV3, 671, 37],
    ["GLM-4.7-Flash", glm47Flash, 30, 3.6],
  ])("of %s: %d billion, %d active, as published", (name, config, total, active) => {
    const planned = planModelOf(name, parseModelConfig(config));
    expect(totalWeights(planned) / 1e9 / total).toBeCloseTo(1, 1);
    expect(activeWeights(planned) / 1e9 / active).toBeCloseTo(1, 0);
  });
  it.each([
    ["deepseek-v2-lite", deepseekV2Lite],
    ["deepseek-v3", deepseekV3],
  ])("of the preset %s: those of its config", (name, config) => {
    const { attention, ...planned } = planModelOf(name, parseModelConfig(config));
    expect(attention).toMatchObject(presets[name]!.attention);
    expect({ ...presets[name], attention: undefined }).toEqual({ ...planned, attention: undefined });
  });
  it("tied embeddings are stored once; 20 heads are three groups", () => {
    const config = parseModelConfig({ ...glm47Flash, tie_word_embeddings: true });
    expect(planModelOf("tied", config).embeddingWeights).toBe(0);
    expect(keyValueHeads(planModelOf("glm", parseModelConfig(glm47Flash)), "grouped")).toBe(3);
  });
  it("of experts that a step touches: one of four a token, even and independent", () => {
    expect(touchedExpertWeights(model, 1)).toBeCloseTo(5e8, 0); // 5 layers · 1 expert
    expect(touchedExpertWeights(model, 2)).toBeCloseTo(5e8 * 4 * (1 - 0.5625), 0);
    expect(touchedExpertWeights({ ...model, experts: null }, 9)).toBe(0);
  });
  it("of plain numbers: shapes that cannot be are refused", () => {
    const plain = {
      ...{ weights: 7e9, layers: 32, hiddenSize: 4096, heads: 32, headDim: 128 },
      ...{ kvLoraRank: 512, qkRopeHeadDim: 64, maxContext: 4096 },
    };
    expect(totalWeights(plainModel("m", plain))).toBe(7e9);
    expect(() => plainModel("m", { ...plain, weights: 1e6 })).toThrow(/at least the/);
    expect(() => plainModel("m", { ...plain, heads: 0 })).toThrow(/heads must be an integer of at least 1/);
    expect(() => plainModel("m", { ...plain, qkRopeHeadDim: 128 })).toThrow(/less than headDim/);
  });
});

describe("the cache", () => {
  it("bytes a token: 576 values, 656 bytes, 2 or 16 heads of 320 values, a layer", () => {
    expect(cacheBytesPerToken(model, "latent", "bf16")).toBe(10 * 1152);
    expect(cacheBytesPerToken(model, "latent", "fp8")).toBe(10 * 656);
    expect(cacheBytesPerToken(model, "grouped", "bf16")).toBe(10 * 2 * 320 * 2);
    expect(cacheBytesPerToken(model, "full", "f32")).toBe(10 * 16 * 320 * 4);
  });
  it("of the dense 7B: 512 KiB a token with every head", () => {
    expect(cacheBytesPerToken(presets["7b"]!, "full", "bf16")).toBe(2 * 32 * 128 * 32 * 2);
  });
  it("is divided by tensor parallelism where there are heads to divide", () => {
    expect([
      cacheShards(model, "latent", 8),
      cacheShards(model, "grouped", 8),
      cacheShards(model, "full", 8),
    ]).toEqual([1, 2, 8]);
  });
  it("FLOPs of a cached token: 2·16·1088 absorbed, 2·16·320 over heads, a layer", () => {
    expect(decodeFlopsPerCachedToken(model, "latent")).toBe(348160);
    expect(decodeFlopsPerCachedToken(model, "full")).toBe(102400);
  });
  it("capacity: 90 GB less 12 GB of weights", () => {
    const capacity = capacityOf(model, deployment);
    expect(capacity.weightBytes).toBe(2 * (4e9 + 20e8));
    expect(capacity.cacheBytes).toBeCloseTo(78e9, -3);
    expect(capacity.tokens).toBe(Math.floor(78e9 / 11520));
    expect(capacityOf(model, { ...deployment, tensorParallel: 2 }).weightBytes).toBe(6e9);
  });
});

describe("the roofline", () => {
  it("is the slower of traffic and arithmetic, each at its efficiency", () => {
    expect(rooflineSeconds({ flops: 1e12, bytes: 1e9 }, gpu, full)).toBeCloseTo(0.01, 9);
    expect(rooflineSeconds({ flops: 1e12, bytes: 1e9 }, gpu, full, "fp8")).toBeCloseTo(0.005, 9);
    expect(rooflineSeconds({ flops: 1e9, bytes: 1e9 }, gpu, { memory: 0.5, compute: 1 })).toBeCloseTo(
      0.002,
      9,
    );
  });
  it("decode of 1 sequence of 1000 tokens: every weight once, the cache once", () => {
    const step = decodeStep(model, deployment, 1, 1000);
    expect(step.attention).toBeCloseTo((1000 * 11520) / 1e12, 9); // 348 MFLOP take less
    expect(step.projections).toBeCloseTo(2e9 / 1e12, 9);
    expect(step.experts).toBeCloseTo(1e9 / 1e12, 9);
    expect(step.head).toBeCloseTo(2e9 / 1e12, 9);
    expect(step.total).toBeCloseTo(0.00701152, 9);
  });
  it("decode of 1000 sequences: arithmetic binds", () => {
    expect(decodeStep(model, deployment, 1000, 10).projections).toBeCloseTo((2 * 1e9 * 1000) / 1e14, 9);
    const many = { ...model, attention: { ...model.attention, heads: 1024 } };
    const flops = 2 * 1024 * 1088 * 10;
    expect(decodeStep(many, deployment, 1, 1e6).attention).toBeCloseTo((flops * 1e6) / 1e14, 9);
  });
  it("decode over 2 GPUs: half the weights, the latent whole, the full cache halved", () => {
    const two = { ...deployment, tensorParallel: 2 };
    expect(decodeStep(model, two, 1, 1000).projections).toBeCloseTo(0.001, 9);
    expect(decodeStep(model, two, 1, 1000).attention).toBeCloseTo((1000 * 11520) / 1e12, 9);
    expect(decodeStep(model, { ...two, form: "full" }, 1, 1000).attention).toBeCloseTo(
      (1000 * 102400) / 2 / 1e12,
      9,
    );
  });
  it("communication: 2 all-reduces a layer of 1000 values of 2 bytes, 2·½ of them over the link", () => {
    expect(communicationSeconds(model, { ...deployment, tensorParallel: 2 }, 8)).toBeCloseTo(
      (2 * 10 * 8 * 2000) / 1e10,
      9,
    );
    expect(communicationSeconds(model, deployment, 8)).toBe(0);
  });
  it("prefill of 1000 tokens: causal half of the square, the head once", () => {
    const step = prefillStep(model, deployment, 1000);
    expect(step.attention).toBeCloseTo((102400 * 1e6) / 2 / 1e14, 9);
    expect(step.projections).toBeCloseTo(0.02, 9);
    expect(step.head).toBeCloseTo(0.002, 9);
    expect(step.experts).toBeCloseTo((2 * 5e8 * 1000) / 1e14, 9);
  });
});

describe("a plan", () => {
  it("times of a batch of 10: a decode step and a tenth of a prompt a token", () => {
    const times = serviceTimes(model, deployment, load, 10);
    const decode = decodeStep(model, deployment, 10, 1050).total;
    const prefill = prefillStep(model, deployment, 1000).total;
    expect(times.tokenLatencyMs).toBeCloseTo(1e3 * (decode + prefill / 10), 9);
    expect(times.requestsPerSecond).toBeCloseTo(10 / (100 * (decode + prefill / 10)), 9);
  });
  it("the whole of it by hand: at most 16.3 ms a token, copies half loaded, 1 ms of overhead a step", () => {
    const { forms } = planDeployment({
      ...input,
      deployment: { ...deployment, overheadSeconds: 1e-3 },
      load: { ...load, tokenLatencyMs: 16.3, utilisation: 0.5 },
    });
    const { service, largestBatch, largestContext } = forms[0]!;
    // 78e9 bytes / 11520 are 6,770,833 tokens; requests of 1100.
    expect([largestBatch, largestContext]).toEqual([6155, 100_000]);
    // Batch 10, decode: attention 10·1050·11520 B, projections, MLP and head 2 GB each, 1 − 0.75^10 of 4 GB of experts.
    const decode = 0.00012096 + 3 * 0.002 + 0.0037747459 + 0.001;
    // Prefill: 5.12e10 FLOPs of attention, 2e12 each of projections and MLP, 1e12 of experts, the head once.
    const prefill = 0.000512 + 2 * 0.02 + 0.01 + 0.002 + 0.001;
    expect(service!.batch).toBe(10);
    expect(service!.decode.total).toBeCloseTo(decode, 8);
    expect(service!.prefill.total).toBeCloseTo(prefill, 8);
    expect(service!.tokenLatencyMs).toBeCloseTo(16.2469, 3); // decode + a tenth of a prompt
    expect(service!.firstTokenLatencyMs).toBeCloseTo(64.4077, 3); // prefill + decode
    expect(service!.requestsPerSecond).toBeCloseTo(10 / (100 * 0.0162469), 3); // 6.155
    expect(service!.tokensPerSecondPerGpu).toBeCloseTo(615.5, 0);
    expect(service!.copies).toBe(4); // 10 / (6.155 · 0.5) = 3.2
    expect(service!.utilisation).toBeCloseTo(10 / (4 * 6.15502), 4);
    expect(service!.dollarsPerMonth).toBe(4 * 2 * 730.5);
    expect(service!.dollarsPerMillionTokens).toBeCloseTo(5844 / 2629.8, 6); // 1000 tokens/s for 730.5 hours
  });
  it("batch: the largest within the latency, one more is over it", () => {
    const strict = { ...load, tokenLatencyMs: 20 };
    const batch = batchWithinLatency(model, deployment, strict, 1e6);
    expect(serviceTimes(model, deployment, strict, batch).tokenLatencyMs).toBeLessThanOrEqual(20);
    expect(serviceTimes(model, deployment, strict, batch + 1).tokenLatencyMs).toBeGreaterThan(20);
  });
  it("cost: whole copies, two GPUs each, an average month", () => {
    const plan = planDeployment({ ...input, deployment: { ...deployment, tensorParallel: 2 } });
    const service = plan.forms[0]!.service!;
    expect(service.copies).toBe(Math.ceil(10 / service.requestsPerSecond));
    expect(service.gpus).toBe(2 * service.copies);
    expect(service.dollarsPerMonth).toBe(service.gpus * 2 * 730.5);
    expect(service.utilisation).toBeLessThanOrEqual(1);
  });
  it("given copies: says when they are not enough", () => {
    const plan = planDeployment({ ...input, copies: 1, load: { ...load, requestsPerSecond: 1e4 } });
    expect(plan.forms[0]!.service!.gpus).toBe(1);
    expect(plan.forms[0]!.service!.utilisation).toBeGreaterThan(1);
  });
  it("a smaller cache never needs more GPUs", () => {
    const [latent, grouped, whole] = planDeployment(input).forms;
    expect(latent!.largestBatch).toBeGreaterThan(grouped!.largestBatch);
    expect(grouped!.service!.gpus).toBeLessThanOrEqual(whole!.service!.gpus);
    expect(latent!.service!.gpus).toBeLessThanOrEqual(grouped!.service!.gpus);
  });
  it("names what stands in the way", () => {
    const of = (gpuMemory: number, changes: Partial<typeof load>) =>
      planDeployment({
        ...input,
        deployment: { ...deployment, gpu: { ...gpu, memoryGB: gpuMemory } },
        load: { ...load, ...changes },
      }).forms[0]!.obstacle;
    expect(of(10, {})).toBe("weights");
    expect(of(12.001 / 0.9, { promptTokens: 90_000 })).toBe("request");
    expect(of(100, { firstTokenLatencyMs: 1 })).toBe("first token");
    expect(of(100, { tokenLatencyMs: 1 })).toBe("token");
    expect(of(100, {})).toBe(null);
  });
  it.each([
    ["requestsPerSecond must be more than 0", { requestsPerSecond: 0 }],
    ["requestsPerSecond must be a finite number of at least 0, got -1", { requestsPerSecond: -1 }],
    ["outputTokens must be an integer of at least 1, got 0", { outputTokens: 0 }],
    ["longer than the model's context of 100000", { promptTokens: 200_000 }],
  ])("%s", (message, changes) => {
    expect(() => planDeployment({ ...input, load: { ...load, ...changes } })).toThrow(message);
  });
  it("more GPUs than heads, negative prices", () => {
    const wide = { ...deployment, tensorParallel: 17 };
    expect(() => planDeployment({ ...input, deployment: wide })).toThrow("the model has 16");
    expect(() => planDeployment({ ...input, pricePerHour: -1 })).toThrow("pricePerHour");
  });
});

describe("the published scenarios", () => {
  it("GPUs by hand at 100 tokens a request and 16 sequences", () => {
    const costs = publishedCosts(scenarioAssumptions);
    // 10 · 100 / (26.2 · 16) = 2.4, / (74.6 · 16) = 0.8; 100: 23.9, 13.8, 8.4, 7.4; 1000: 238.5, 138.3, 83.8, 73.8
    expect(costs.map(({ gpus }) => gpus)).toEqual([3, 2, 1, 1, 24, 14, 9, 8, 239, 139, 84, 74]);
    expect(costs[0]!.dollarsPerMonth).toBe(3 * 2.5 * 730.5);
  });
  it("67 %: two thirds by rounding, and the mean of both latents without", () => {
    const values = derivationsOf67().map(({ value }) => value);
    expect(values[0]).toBeCloseTo(2 / 3, 12);
    expect(values[1]).toBeCloseTo(2 / 3, 12);
    expect(values[2]).toBeCloseTo(0.6488, 4);
    expect(values[3]).toBeCloseTo(0.6907, 4);
    expect(Math.round(1000 * values[4]!)).toBe(670);
  });
});

describe("GPU data", () => {
  it("has a source and a date for every number", () => {
    const gpus = shippedGpus();
    expect(gpus.map(({ id }) => id)).toContain("h200-sxm");
    for (const { specSource, priceSource, pricePerHour } of gpus) {
      expect(specSource.url).toMatch(/^https:/);
      expect(priceSource === null).toBe(pricePerHour === null);
    }
  });
  it("refuses unknown GPUs and wrong files in a sentence", () => {
    expect(() => findGpu(shippedGpus(), "h300")).toThrow(
      /no data on the GPU "h300"; choose one of a100-80gb/,
    );
    expect(() => parseGpus({ gpus: [{ ...gpu, memoryGB: -1 }] }, "bad.json")).toThrow(
      /The GPU file bad\.json has a wrong field gpus\.0\.memoryGB/,
    );
    expect(() => parseGpus([], "list.json")).toThrow(/list\.json has a wrong field at its top/);
  });
});

describe("calibration", () => {
  const result = (name: string, bound: string, fraction: number) => ({ name, bound, fraction });
  const report = {
    ...{ date: "2026-11-24T00:00:00Z", machine: { slug: "m" }, versions: { flashmla: "1.0.0" } },
    results: [
      result("mla-decode b=1", "memory", 0.4),
      result("mla-decode b=2", "memory", 0.6),
      result("mla-decode b=3", "memory", 0.5),
      result("linear n=1", "memory", 0.9),
      result("linear n=9", "compute", 1.2),
      result("rms-norm", "memory", 0.1),
    ],
  };
  const assumed = { attention: full, weights: { memory: 0.3, compute: 0.3 } };
  it("medians of the fractions, at most 1, the assumption where nothing was measured", () => {
    const { efficiency, cases, origin } = calibrationOf(report, "ok.json", "1.0.0", assumed, gpu);
    expect(efficiency).toEqual({
      attention: { memory: 0.5, compute: 1 },
      weights: { memory: 0.9, compute: 1 },
    });
    expect(cases.attention).toEqual({ memory: 3, compute: 0 });
    expect(origin).toContain("m, 2026-11-24");
  });
  it("the longer half of the cases counts", () => {
    const timed = (fraction: number, milliseconds: number) => ({
      ...result("mla-decode", "memory", fraction),
      milliseconds,
    });
    const results = [timed(0.1, 0.01), timed(0.2, 0.02), timed(0.7, 5), timed(0.8, 9)];
    const { efficiency, cases } = calibrationOf({ ...report, results }, "l.json", "1.0.0", assumed, gpu);
    expect(efficiency.attention.memory).toBeCloseTo(0.75, 12);
    expect(cases.attention.memory).toBe(2);
  });
  it("a report made on the planned GPU: fractions of its published peaks", () => {
    // 900 of 1000 GB/s and 80 of 100 TFLOPS were measured there.
    const ceilings = { bytesPerSecond: 9e11, flopsPerSecond: 8e13 };
    const results = [result("mla-decode b=1", "memory", 0.5), result("mla-decode b=2", "compute", 0.5)];
    const made = { ...report, ceilings, results, machine: { slug: "round-80gb" } };
    const { efficiency, origin } = calibrationOf(made, "g.json", "1.0.0", assumed, gpu);
    expect(efficiency.attention.memory).toBeCloseTo(0.45, 12);
    expect(efficiency.attention.compute).toBeCloseTo(0.4, 12);
    expect(origin).toContain("of the GPU's published peaks");
    const other = { ...made, machine: { slug: "square" } };
    expect(calibrationOf(other, "o.json", "1.0.0", assumed, gpu).efficiency.attention.memory).toBe(0.5);
  });
  it("says of hand-written results that they are no report", () => {
    const file = new URL("../../benchmarks/results/h200/2026-11-24-mla-decode.json", import.meta.url);
    const written: unknown = JSON.parse(readFileSync(file, "utf8"));
    expect(() => calibrationOf(written, "h.json", "0.1.0", assumed, gpu)).toThrow(
      /^h\.json is no report of flashmla bench kernel \(versions is not what it should be\)/,
    );
  });
  it("reads what flashmla bench kernel writes", () => {
    const times = { threads: 1, milliseconds: 1, bestMilliseconds: 1, gflops: 1, gigabytesPerSecond: 1 };
    const ceiling = { gigabytesPerSecond: 2, gflops: 50 };
    const measured: Omit<BenchReport, keyof ReportOrigin> = {
      ...{ name: "kernel", features: [], rounds: 1, ceilings: [] },
      results: [{ ...times, name: "mla-decode b=1", bound: "memory", fraction: 0.7, ceiling, worstError: 0 }],
    };
    const written = JSON.parse(JSON.stringify(createReport(measured, "1.0.0")));
    expect(calibrationOf(written, "w.json", "1.0.0", assumed, gpu).efficiency.attention.memory).toBe(0.7);
  });
  it("refuses another version, another kind of file", () => {
    expect(() => calibrationOf(report, "v.json", "2.0.0", assumed, gpu)).toThrow(
      /measured with flashmla 1\.0\.0 and this is 2\.0\.0/,
    );
    expect(() => calibrationOf({ a: 1 }, "k.json", "1.0.0", assumed, gpu)).toThrow(/is no report/);
  });
});

describe("the report", () => {
  it("sensitivity charts: one series a form, GPUs grow with the rate", () => {
    const charts = sensitivityCharts(input);
    expect(charts.map(({ title }) => title)).toEqual([
      "Monthly cost by load",
      "Throughput by context",
      "Sequences that fit by context",
      "Monthly cost by the latency that is allowed",
    ]);
    for (const chart of charts) {
      expect(chart.series.map(({ name }) => name)).toEqual(["latent", "grouped-query", "full multi-head"]);
      expect(() => chartSpec(chart)).not.toThrow();
    }
    const costs = charts[0]!.series[0]!.points.map(({ y }) => y);
    expect(costs).toEqual([...costs].sort((a, b) => a - b));
    const batches = charts[2]!.series[0]!.points.map(({ y }) => y);
    expect(batches).toEqual([...batches].sort((a, b) => b - a));
  });
  it("parts of a decode step and the published scenarios: the bars of each", () => {
    const plan = planDeployment(input);
    const charts = planPage(input, plan, null, "1.0.0").sections.flatMap(({ blocks }) =>
      blocks.flatMap((block) => (block.kind === "chart" ? [block.chart] : [])),
    );
    const parts = charts.find(({ title }) => title === "Where a decode step's time goes")!;
    const latent = plan.forms[0]!.service!.decode;
    expect(parts.series.map(({ name }) => name)).toEqual(["latent", "grouped-query", "full multi-head"]);
    expect(parts.series[0]!.points).toEqual(
      (["attention", "projections", "mlp", "experts", "head", "communication"] as const).map((x) => ({
        ...{ x, y: latent[x] * 1e3 },
      })),
    );
    const scenarios = charts.find(({ title }) => title === "The published scenarios")!;
    expect(scenarios.series.map(({ points }) => points.map(({ y }) => Math.round(y)))).toEqual([
      [100, 100, 100],
      [67, 58, 58],
      [33, 38, 35],
      [33, 33, 31],
    ]);
  });
  it("a page says the answer first, and opens when nothing fits", async () => {
    const html = await renderPage(planPage(input, planDeployment(input), null, "1.0.0"));
    expect(html).toContain("a month with a latent cache");
    expect(html.match(/<svg/g)).toHaveLength(6);
    const small = { ...input, deployment: { ...deployment, gpu: { ...gpu, memoryGB: 1 } } };
    const none = await renderPage(planPage(small, planDeployment(small), null, "1.0.0"));
    expect(none).toContain("weights do not fit with a latent cache");
    expect(none.match(/<svg/g)).toHaveLength(1);
  });
  it("digits", () => {
    expect([3, 0.01234, 12.345, 123.4, 1234.5, 0].map(digits)).toEqual([
      "3",
      "0.0123",
      "12.3",
      "123",
      "1,235",
      "0",
    ]);
  });
});
