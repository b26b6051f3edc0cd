import type { Chart } from "../../report/chart.ts";
import type { ReportBlock, ReportPage, ReportSection } from "../../report/page.ts";
import type { Report } from "../report.ts";
import { measuredTimes } from "./break-even.ts";
import { findings } from "./findings.ts";
import { claimsTable, ownFigures, ownTable, verdictTable } from "./published-tables.ts";
import type { CompareRow, CompareScope } from "./rows.ts";
import { type CompareShape, compareForms } from "./shapes.ts";
import {
  breakEvenTable,
  missingSentences,
  rowsTable,
  scopeTitles,
  timesTable,
  tuningTable,
} from "./tables.ts";
import { type TuningShare, tuningShares } from "./tuning.ts";

/** What `flashmla bench compare` measured, as it is kept under benchmarks/results. */
export type CompareReport = Report<{
  readonly name: string;
  readonly device: string;
  readonly shape: CompareShape;
  readonly rows: readonly CompareRow[];
  /** Whether every row was reached; rows that were not say so themselves. */
  readonly isComplete: boolean;
}>;

function tableBlock(rows: readonly (readonly string[])[], caption: string): ReportBlock & { kind: "table" } {
  const [head = [], ...body] = rows;
  return { kind: "table", caption, head, rows: body };
}

/** Times by context at one batch, for the forms with a measured row; null where there is none. */
function timeChart(rows: readonly CompareRow[], scope: CompareScope, batch: number): Chart | null {
  const series = compareForms.flatMap(({ id, title }) => {
    const times = measuredTimes(rows, scope, id, batch);
    return times.length === 0
      ? []
      : [
          {
            name: title,
            points: times.map(({ context, milliseconds }) => ({ x: context, y: milliseconds })),
          },
        ];
  });
  if (series.length === 0) return null;
  return {
    kind: "line",
    title: `Time per token, ${scopeTitles[scope]}, batch ${batch}`,
    caption: "A line ends where its form no longer fits the device.",
    x: { title: "context, cached tokens", scale: "log" },
    y: { title: "ms per token", scale: "log" },
    series,
  };
}

function cacheChart(rows: readonly CompareRow[]): Chart {
  const single = rows.filter((row) => row.batch === rows[0]!.batch && row.scope === rows[0]!.scope);
  return {
    kind: "line",
    title: `Cache of batch ${rows[0]!.batch}, ${scopeTitles[rows[0]!.scope]}`,
    caption: "Arithmetic: entry bytes times tokens in whole pages.",
    x: { title: "context, cached tokens", scale: "log" },
    y: { title: "cache, bytes", scale: "log" },
    series: compareForms
      .filter(({ id }) => id !== "standard" && single.some(({ form }) => form === id))
      .map(({ id, title }) => ({
        ...{ name: id === "flash" ? "full heads" : title, isEstimated: true },
        points: single
          .filter(({ form }) => form === id)
          .map(({ context, cacheBytes }) => ({ x: context, y: cacheBytes })),
      })),
  };
}

function scopeSection(rows: readonly CompareRow[], scope: CompareScope): ReportSection {
  const own = rows.filter((row) => row.scope === scope);
  const batches = [...new Set(own.map(({ batch }) => batch))].sort((a, b) => a - b);
  const shown = batches.length <= 4 ? batches : [batches[0]!, batches[Math.floor(batches.length / 2)]!];
  const charts = shown.flatMap((batch): ReportBlock[] => {
    const chart = timeChart(rows, scope, batch);
    return chart === null ? [] : [{ kind: "chart", chart }];
  });
  const times = tableBlock(
    timesTable(rows, scope),
    "Milliseconds per token: a step gives every sequence one. – was not measured; why is said below.",
  );
  const all = tableBlock(
    rowsTable(rows, scope),
    "Times, rates and memory are measured; the cache is arithmetic, for rows that were not measured too.",
  );
  const heading = scopeTitles[scope];
  return {
    heading: heading[0]!.toUpperCase() + heading.slice(1),
    blocks: [...charts, times, { ...all, isFolded: true }],
  };
}

function tuningSection(shares: readonly TuningShare[]): ReportSection[] {
  if (shares.length === 0) return [];
  const caption =
    "Time that the ceiling allows over time taken by scores, softmax and values alone, the best of each; ceilings (streaming reads, " +
    "multiply-adds) are measured around every row. Medians are of the cells that every form fits.";
  return [{ heading: "How well each kernel is tuned", blocks: [tableBlock(tuningTable(shares), caption)] }];
}

/** The report as a page. */
export function comparePage(report: CompareReport): ReportPage {
  const { rows, shape, machine, device, versions, commit, date } = report;
  const scopes = [...new Set(rows.map(({ scope }) => scope))];
  const missing = missingSentences(rows);
  const shares = tuningShares(rows, shape);
  const own = ownFigures(rows);
  const ownBlocks: ReportBlock[] =
    own === null ? [] : [tableBlock(ownTable(rows), `Whole model, batch 1, context ${own.context}.`)];
  const chart = cacheChart(rows);
  const caches: ReportBlock[] = chart.series.length === 0 ? [] : [{ kind: "chart", chart }];
  return {
    title: "What latent attention buys on this machine",
    findings: findings(rows, shares),
    sections: [
      ...scopes.map((scope) => scopeSection(rows, scope)),
      { heading: "Break-even", blocks: [tableBlock(breakEvenTable(rows), "By lines between neighbours.")] },
      ...tuningSection(shares),
      { heading: "Cache", blocks: caches },
      {
        heading: "The published claims",
        blocks: [
          tableBlock(claimsTable(), "Published figures beside computed ones; nothing here is measured."),
          tableBlock(verdictTable(), "What follows from arithmetic."),
          ...ownBlocks,
        ],
      },
      ...(missing.length === 0
        ? []
        : [{ heading: "Not measured", blocks: [{ kind: "list", items: missing } as const] }]),
    ],
    origin: [
      ["date", date],
      ["commit", commit ?? "none"],
      ["machine", `${machine.cpu}, ${machine.processors} processors, ${machine.system}`],
      ["device", device],
      [
        "shape",
        `${shape.name}: ${shape.layers} layers, hidden ${shape.hidden}, ${shape.heads} heads of ${shape.headWidth}`,
      ],
      ["versions", `flashmla ${versions.flashmla}, node ${versions.node}`],
    ],
  };
}
