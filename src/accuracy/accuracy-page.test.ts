import { describe, expect, it } from "vitest";
import { chartSpec } from "../report/chart.ts";
import { renderPage } from "../report/page.ts";
import { findingsOf } from "./accuracy-findings.ts";
import { accumulationChart, accuracyPage, growthChart, perplexityChart } from "./accuracy-page.ts";
import {
  type AccuracyResult,
  accumulationRows,
  errorRows,
  fittedGrowth,
  lengthName,
  modelRows,
  percent,
  skippedRows,
  studyOf,
} from "./accuracy-tables.ts";
import type { AttentionRow } from "./study.ts";

const lengths = [1024, 4096, 16384];
const scales = { f32: 1e-7, bf16: 1e-3, fp8: 1e-2 };
const accumulated = {
  ...{ float32: 4e-6, "float32, 16 splits": 1e-6, "float32, bf16 weights": 2e-3 },
  ...{ bf16: 20, f16: 0.5 },
};
const dtypes = ["f32", "bf16", "fp8"] as const;

/** Output errors that are constant but for bf16, which grows as √length; log-sum-exp errors that are 0 for f32. */
const result: AccuracyResult = {
  devices: [{ kind: "cpu", name: "a device" }],
  study: {
    attention: dtypes.flatMap((dtype) =>
      lengths.map((length) => ({
        ...{ device: "cpu" as const, stream: "realistic" as const, dtype, length, worstOut: 1 },
        out: scales[dtype] * (dtype === "bf16" ? Math.sqrt(length / 1024) : 1),
        lse: dtype === "f32" ? 0 : scales[dtype] / 10,
      })),
    ),
    accumulation: lengths.flatMap((length) =>
      (["float32", "float32, 16 splits", "float32, bf16 weights", "bf16", "f16"] as const).map(
        (accumulator) => ({
          ...{ stream: "all equal" as const, accumulator, length },
          error: accumulated[accumulator],
        }),
      ),
    ),
    skipped: [],
  },
  model: {
    ...{ name: "a model", tokens: 1000, skipped: [] },
    effects: dtypes.map((dtype, i) => ({
      ...{
        dtype,
        bytesPerTokenAndLayer: 100 - i,
        perplexity: 10 + i,
        bitsPerByte: 2,
        sameContinuations: 0.5,
      },
      ...{ agreement: 1 - 0.1 * i, sameTokens: 64 - i },
    })),
  },
};
const partial: AccuracyResult = {
  ...result,
  model: null,
  study: {
    attention: [],
    accumulation: [],
    skipped: [{ what: "far needle, 1024 tokens, f16", reason: "no room" }],
  },
};

const onCuda = (row: AttentionRow): AttentionRow => ({ ...row, device: "cuda", out: 2 * row.out });

describe("tables", () => {
  it("errors by length, with the exponent of their growth", () => {
    expect(errorRows(result.study, "out")).toEqual([
      ["output, relative", "cache", "1k", "4k", "16k", "exponent"],
      ["realistic", "f32", "1.0e-7", "1.0e-7", "1.0e-7", "0.00"],
      ["realistic", "bf16", "1.0e-3", "2.0e-3", "4.0e-3", "0.50"],
      ["realistic", "fp8", "1.0e-2", "1.0e-2", "1.0e-2", "0.00"],
    ]);
    expect(errorRows(result.study, "lse")[1]).toEqual(["realistic", "f32", "0", "0", "0", ""]);
  });
  it("ways of adding up, the model, what was not measured", () => {
    expect(accumulationRows(result.study)[4]).toEqual(["all equal", "bf16", "2.0e+1", "2.0e+1", "2.0e+1"]);
    expect(modelRows(result.model!.effects)[3]).toEqual([
      ...["fp8", "98", "12.0000", "2.0000", "80.00 %", "62.0 of 64 tokens"],
    ]);
    expect(skippedRows(partial)[1]).toEqual(["far needle, 1024 tokens, f16", "no room"]);
  });
  it("one law of each format and output", () => {
    const laws = fittedGrowth(result.study);
    expect(laws).toHaveLength(6);
    expect(laws.find(({ dtype, output }) => dtype === "f32" && output === "lse")!.law).toBe(null);
  });
  it("several devices: a row and a law of each, told apart", () => {
    const { attention } = result.study;
    const twice = { ...result.study, attention: [...attention, ...attention.map(onCuda)] };
    expect(errorRows(twice, "out").map(([name]) => name)).toEqual([
      "output, relative",
      ...["realistic, cpu", "realistic, cpu", "realistic, cpu"],
      ...["realistic, cuda", "realistic, cuda", "realistic, cuda"],
    ]);
    expect(fittedGrowth(twice)).toHaveLength(12);
    expect(growthChart(studyOf(twice, "cuda"), "realistic", "out")!.title).toBe(
      "Output: realistic contexts, cuda",
    );
    const sentences = findingsOf({ ...result, study: twice });
    expect(sentences.filter((one) => one.includes("(cuda)"))[0]).toContain("bf16 0.20 % and 0.80 %");
  });
  it("lengths and shares for people", () => {
    expect([1024, 1048576, 1000].map(lengthName)).toEqual(["1k", "1M", "1000"]);
    expect([0, 1, 0.0123, 4.5e-7].map(percent)).toEqual(["0.00 %", "100.00 %", "1.23 %", "0.000045 %"]);
  });
});

describe("findings", () => {
  it("say what is lost, how it grows and what may not be narrow", () => {
    const [model, output, growth, sums] = findingsOf(result);
    expect(model).toContain(
      "bf16 +10.00 % (the likeliest token is the same at 90.00 % of positions), fp8 +20.00 %",
    );
    expect(output).toContain("at 1k and at 16k tokens");
    expect(output).toContain("bf16 0.10 % and 0.40 %");
    expect(growth).toContain(
      "bf16 on realistic contexts (cpu): length to the power of 0.50, 1.41 times the error",
    );
    expect(sums).toContain("sums in bf16 by 20 times the result");
  });
  it("say what was not measured, and nothing of what is not there", () => {
    expect(findingsOf(partial)).toEqual([
      "Not measured: 1 of the cases; they are listed below with the reason.",
    ]);
  });
});

describe("charts", () => {
  it("growth: every format's points above 0, and its law dashed", () => {
    const chart = growthChart(result.study, "realistic", "out")!;
    expect(chart.series.map(({ name }) => name)).toEqual([
      "f32",
      "f32 law",
      "bf16",
      "bf16 law",
      "fp8",
      "fp8 law",
    ]);
    expect(chart.series[3]!.isEstimated).toBe(true);
    chart.series[3]!.points.forEach(({ y }, i) => {
      expect(y).toBeCloseTo(chart.series[2]!.points[i]!.y, 12);
    });
    expect(growthChart(result.study, "realistic", "lse")!.series.map(({ name }) => name)).not.toContain(
      "f32",
    );
    expect(growthChart(result.study, "far needle", "out")).toBe(null);
    expect(() => chartSpec(chart)).not.toThrow();
  });
  it("ways of adding up: five lines; perplexity: a bar a format, in percent", () => {
    expect(accumulationChart(result.study, "all equal")!.series).toHaveLength(5);
    expect(accumulationChart(result.study, "realistic")).toBe(null);
    const bars = perplexityChart(result.model!.effects)!.series[0]!.points;
    expect(bars[0]!.x).toBe("bf16");
    expect(bars[0]!.y).toBeCloseTo(10, 10);
    expect(perplexityChart([])).toBe(null);
  });
  it("a model that was cut off: what was not measured is listed with the study's", () => {
    const skipped = [{ what: "the model, fp8", reason: "stopped by Ctrl-C" }];
    const cut = { ...partial, model: { ...result.model!, effects: [], skipped } };
    expect(skippedRows(cut).slice(1)).toEqual([
      ["the model, fp8", "stopped by Ctrl-C"],
      ["far needle, 1024 tokens, f16", "no room"],
    ]);
    expect(findingsOf(cut)).toEqual(["Not measured: 2 of the cases; they are listed below with the reason."]);
    expect(accuracyPage(cut, []).sections.map(({ heading }) => heading)).not.toContain(
      "A real model: a model",
    );
  });
  it("the report holds them all, and opens when nothing was measured", async () => {
    const html = await renderPage(accuracyPage(result, [["commit", "abc"]]));
    expect(html.match(/<svg/g)).toHaveLength(4);
    expect(html).not.toMatch(/NaN|undefined/);
    const empty = await renderPage(accuracyPage(partial, []));
    expect(empty).toContain("no room");
    expect(empty).not.toContain("<svg");
  });
});
