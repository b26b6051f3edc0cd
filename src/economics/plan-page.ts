import type { Chart } from "../report/chart.ts";
import type { ReportBlock, ReportPage } from "../report/page.ts";
import { cacheFormNames } from "./cache-forms.ts";
import type { Calibration } from "./calibration.ts";
import type { Plan, PlanInput } from "./plan.ts";
import {
  costRows,
  derivationRows,
  digits,
  findingsOf,
  memoryRows,
  type Rows,
  scenarioRows,
  stepRows,
} from "./plan-tables.ts";
import { publishedCosts, publishedRows, publishedScenarios, scenarioAssumptions } from "./scenarios.ts";
import { sensitivityCharts } from "./sensitivity.ts";

const table = ([head = [], ...rows]: Rows): ReportBlock => ({ kind: "table", head, rows });

/** Decode milliseconds by part, a bar each, of every form that can serve. */
function partsChart({ forms }: Plan): Chart | null {
  const parts = ["attention", "projections", "mlp", "experts", "head", "communication"] as const;
  const series = forms.flatMap(({ form, service }) =>
    service === null
      ? []
      : [
          {
            name: cacheFormNames[form],
            points: parts.map((part) => ({ x: part as string, y: service.decode[part] * 1e3 })),
          },
        ],
  );
  if (series.length === 0) return null;
  const caption =
    "Each form at its own batch: a smaller cache lets more sequences share one reading of the weights.";
  return {
    ...{ kind: "bar", title: "Where a decode step's time goes", caption },
    ...{ x: { title: "part" }, y: { title: "milliseconds" }, series },
  };
}

/** The published scenarios as bars: GPUs of each kind of attention, relative to standard attention. */
function scenarioChart(): Chart {
  const costs = publishedCosts(scenarioAssumptions);
  const series = publishedRows.map(({ name }) => ({
    name,
    points: costs
      .filter((cost) => cost.name === name)
      .map((cost) => ({ x: `${cost.requestsPerSecond} requests/s`, y: 100 * (1 - cost.saving) })),
  }));
  return {
    ...{ kind: "bar", title: "The published scenarios", series },
    caption: `GPUs beside standard attention at ${scenarioAssumptions.tokensPerRequest} tokens a request and ${scenarioAssumptions.sequencesPerGpu} sequences a GPU, from the published throughputs.`,
    ...{ x: { title: "load" }, y: { title: "% of standard attention's GPUs" } },
  };
}

/** The assumptions of a plan, a sentence each. */
export function assumptionsOf(input: PlanInput, calibration: Calibration | null): string[] {
  const { deployment, load, pricePerHour } = input;
  const { gpu, efficiency } = deployment;
  const share = (value: number) => `${(100 * value).toFixed(0)} %`;
  return [
    `${gpu.name}: ${gpu.memoryGB} GB, ${gpu.bandwidthGBs} GB/s, ${gpu.bf16Tflops} TFLOPS bf16 dense (${gpu.specSource.title}; ${gpu.specSource.url}, ${gpu.specSource.date}).`,
    `$${pricePerHour.toFixed(2)} an hour and GPU${gpu.priceSource && gpu.pricePerHour === pricePerHour ? ` (${gpu.priceSource.title}; ${gpu.priceSource.url}, ${gpu.priceSource.date})` : ""}.`,
    `Weights in ${deployment.weightDtype}, cache in ${deployment.cacheDtype}, a copy on ${deployment.tensorParallel} GPU${deployment.tensorParallel === 1 ? "" : "s"}; at most ${load.tokenLatencyMs} ms a token and ${load.firstTokenLatencyMs} ms to the first; copies are loaded to ${share(load.utilisation)}.`,
    `Kernels reach ${share(efficiency.attention.memory)} (attention) and ${share(efficiency.weights.memory)} (weights) of the bandwidth, ${share(efficiency.attention.compute)} and ${share(efficiency.weights.compute)} of the FLOPS: ${calibration === null ? "assumed; calibrate them with --results" : `measured, ${calibration.origin}`}.`,
  ];
}

/** A plan as a report. */
export function planPage(
  input: PlanInput,
  plan: Plan,
  calibration: Calibration | null,
  version: string,
): ReportPage {
  const charts = [partsChart(plan), ...sensitivityCharts(input)].filter((one) => one !== null);
  const { requestsPerSecond, dollarsPerHour } = publishedScenarios;
  return {
    title: `Deploying ${input.model.name}`,
    findings: findingsOf(plan, input),
    sections: [
      { heading: "Cost", blocks: [table(costRows(plan))] },
      { heading: "Memory", blocks: [table(memoryRows(plan))] },
      { heading: "Time", blocks: [table(stepRows(plan, "decode")), table(stepRows(plan, "prefill"))] },
      {
        heading: "What moves the answer",
        blocks: charts.map((chart) => ({ kind: "chart" as const, chart })),
      },
      {
        heading: "The published scenarios",
        blocks: [
          {
            kind: "text",
            text: `Published: ${requestsPerSecond.join(", ")} requests/s at $${dollarsPerHour.toFixed(2)} an hour save 67 %. Its assumptions are not stated; these give it.`,
          },
          ...[table(scenarioRows()), table(derivationRows())],
          { kind: "chart", chart: scenarioChart() },
        ],
      },
      { heading: "Assumptions", blocks: [{ kind: "list", items: assumptionsOf(input, calibration) }] },
    ],
    origin: [
      ["command", "flashmla plan"],
      ["version", version],
      ["weights", `${digits(plan.totalWeights / 1e9)} billion, ${digits(plan.activeWeights / 1e9)} active`],
      ["formulas", "docs/planner.md"],
    ],
  };
}
