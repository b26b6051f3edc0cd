import type { Chart, ChartSeries } from "../report/chart.ts";
import type { ReportBlock, ReportPage, ReportSection } from "../report/page.ts";
import { accumulators } from "./accumulation.ts";
import { findingsOf } from "./accuracy-findings.ts";
import {
  type AccuracyResult,
  accumulationRows,
  devicesOf,
  errorRows,
  fittedGrowth,
  modelRows,
  type Rows,
  skippedOf,
  skippedRows,
  studyOf,
} from "./accuracy-tables.ts";
import { predictError } from "./growth-law.ts";
import type { ModelEffect } from "./model-effect.ts";
import type { StreamName } from "./streams.ts";
import type { Study } from "./study.ts";

const table = ([head = [], ...rows]: Rows): ReportBlock => ({ kind: "table", head, rows });

interface Fitted {
  readonly measured: ChartSeries;
  readonly law: ChartSeries | null;
}

/** Measured errors above 0 of one format, and its law over the same lengths. */
function fittedSeries(study: Study, stream: StreamName, dtype: string, output: "out" | "lse"): Fitted | null {
  const rows = study.attention.filter(
    (row) => row.stream === stream && row.dtype === dtype && row[output] > 0,
  );
  if (rows.length === 0) return null;
  const found = fittedGrowth(study).find(
    (fitted) => fitted.stream === stream && fitted.dtype === dtype && fitted.output === output,
  );
  const law = found?.law ?? null;
  return {
    measured: { name: dtype, points: rows.map((row) => ({ x: row.length, y: row[output] })) },
    law: law && {
      name: `${dtype} law`,
      isEstimated: true,
      fittedTo: dtype,
      points: rows.map(({ length }) => ({ x: length, y: predictError(law, length) })),
    },
  };
}

/** The growth of `output`'s error on one kind of context and one device's study: a line for every format, its fitted law dashed beside it. */
export function growthChart(study: Study, stream: StreamName, output: "out" | "lse"): Chart | null {
  const dtypes = [...new Set(study.attention.map((row) => row.dtype))];
  const series = dtypes.flatMap((dtype) => {
    const fitted = fittedSeries(study, stream, dtype, output);
    if (fitted === null) return [];
    return fitted.law === null ? [fitted.measured] : [fitted.measured, fitted.law];
  });
  if (series.length === 0) return null;
  const name = output === "out" ? "Output" : "Log-sum-exp";
  return {
    kind: "line",
    title: `${name}: ${stream} contexts, ${devicesOf(study).join(", ")}`,
    caption:
      "Both axes are logarithmic: a straight line is a power law, a flat one no growth. Dashed: the fitted law.",
    x: { title: "cached tokens", scale: "log" },
    y: { title: output === "out" ? "relative error" : "absolute error", scale: "log" },
    series,
  };
}

/** The growth of what adding up costs. */
export function accumulationChart({ accumulation }: Study, stream: StreamName): Chart | null {
  const series = accumulators.flatMap((accumulator) => {
    const rows = accumulation.filter(
      (row) => row.stream === stream && row.accumulator === accumulator && row.error > 0,
    );
    return rows.length === 0
      ? []
      : [{ name: accumulator, points: rows.map((row) => ({ x: row.length, y: row.error })) }];
  });
  if (series.length === 0) return null;
  return {
    kind: "line",
    title: `Ways of adding up: ${stream} contexts`,
    x: { title: "cached tokens", scale: "log" },
    y: { title: "relative error", scale: "log" },
    series,
  };
}

/** The rise of perplexity beside the first format. */
export function perplexityChart(effects: readonly ModelEffect[]): Chart | null {
  const [exact, ...others] = effects;
  if (exact === undefined || others.length === 0) return null;
  const points = others.map(({ dtype, perplexity }) => ({
    x: dtype as string,
    y: 100 * (perplexity / exact.perplexity - 1),
  }));
  return {
    kind: "bar",
    title: `Perplexity beside an ${exact.dtype} cache`,
    x: { title: "cache" },
    y: { title: "change in %" },
    series: [{ name: "held-out text", points }],
  };
}

const charts = (list: readonly (Chart | null)[]): ReportBlock[] =>
  list.flatMap((chart) => (chart === null ? [] : [{ kind: "chart" as const, chart }]));

function sectionsOf(result: AccuracyResult): ReportSection[] {
  const { study, model } = result;
  const streams = [...new Set(study.attention.map((row) => row.stream))];
  const summed = [...new Set(study.accumulation.map((row) => row.stream))];
  const growth = (output: "out" | "lse") =>
    devicesOf(study).flatMap((device) =>
      streams.map((stream) => growthChart(studyOf(study, device), stream, output)),
    );
  return [
    ...(model === null || model.effects.length === 0
      ? []
      : [
          {
            heading: `A real model: ${model.name}`,
            blocks: [table(modelRows(model.effects)), ...charts([perplexityChart(model.effects)])],
          },
        ]),
    { heading: "Attention output", blocks: [table(errorRows(study, "out")), ...charts(growth("out"))] },
    { heading: "Log-sum-exp", blocks: [table(errorRows(study, "lse")), ...charts(growth("lse"))] },
    {
      heading: "What adding up costs",
      blocks: [
        table(accumulationRows(study)),
        ...charts(summed.map((name) => accumulationChart(study, name))),
      ],
    },
    ...(skippedOf(result).length === 0
      ? []
      : [{ heading: "Not measured", blocks: [table(skippedRows(result))] }]),
  ];
}

/** An accuracy study as a report. */
export function accuracyPage(result: AccuracyResult, origin: ReportPage["origin"]): ReportPage {
  return {
    title: "What each cache format costs in accuracy",
    findings: findingsOf(result),
    sections: sectionsOf(result),
    origin,
  };
}
