import type { Chart } from "../report/chart.ts";
import { type CacheForm, cacheFormNames, cacheForms } from "./cache-forms.ts";
import type { Load } from "./load.ts";
import { type FormPlan, type PlanInput, planDeployment } from "./plan.ts";

/** What one chart varies. */
interface Sweep {
  readonly values: readonly number[];
  readonly change: (input: PlanInput, value: number) => PlanInput;
}

const withLoad = (input: PlanInput, load: Partial<Load>): PlanInput => ({
  ...input,
  load: { ...input.load, ...load },
});
const powers = (from: number, count: number) => Array.from({ length: count }, (_, i) => from * 2 ** i);

/** A series for every form of the cache, of the points at which it can serve; forms that never can are left out. */
function seriesOf(input: PlanInput, { values, change }: Sweep, yOf: (plan: FormPlan) => number | null) {
  const plans = values.map((x) => ({ x, forms: planDeployment(change(input, x)).forms }));
  const pointsOf = (form: CacheForm) =>
    plans.flatMap(({ x, forms }) => {
      const y = yOf(forms.find((plan) => plan.form === form)!);
      return y === null ? [] : [{ x, y }];
    });
  return cacheForms
    .map((form) => ({ name: cacheFormNames[form], points: pointsOf(form) }))
    .filter(({ points }) => points.length > 0);
}

/** Contexts from 512 tokens up to the model's own. */
function contextsOf({ model, load }: PlanInput): number[] {
  return powers(512, 12).filter((context) => context + load.outputTokens <= model.maxContext);
}

function chart(
  parts: Pick<Chart, "title" | "caption" | "x" | "y" | "series" | "rules"> | null,
): Chart | null {
  return parts === null || parts.series.length === 0 ? null : { kind: "line", ...parts };
}

function costByRate(input: PlanInput): Chart | null {
  const { requestsPerSecond: rate } = input.load;
  const sweep = {
    values: powers(rate / 8, 7),
    change: (one: PlanInput, value: number) =>
      withLoad({ ...one, copies: undefined }, { requestsPerSecond: value }),
  };
  return chart({
    title: "Monthly cost by load",
    caption: "Steps are whole copies of the model; the vertical line is the planned load.",
    x: { title: "requests a second", scale: "log" },
    y: { title: "dollars a month", scale: "log" },
    series: seriesOf(input, sweep, ({ service }) =>
      service === null ? null : Math.max(service.dollarsPerMonth, 0.01),
    ),
    rules: [{ name: "planned", axis: "x", value: rate }],
  });
}

function byContext(
  input: PlanInput,
  [title, y, end]: readonly [title: string, y: string, end: string],
  yOf: (plan: FormPlan) => number | null,
) {
  const sweep = {
    values: contextsOf(input),
    change: (one: PlanInput, promptTokens: number) => withLoad(one, { promptTokens }),
  };
  return chart({
    title,
    caption: `A line ends where a form of the cache ${end}.`,
    x: { title: "prompt tokens", scale: "log" },
    y: { title: y, scale: "log" },
    series: sweep.values.length === 0 ? [] : seriesOf(input, sweep, yOf),
  });
}

function costByLatency(input: PlanInput): Chart | null {
  const sweep = {
    values: powers(input.load.tokenLatencyMs / 4, 6),
    change: (one: PlanInput, tokenLatencyMs: number) =>
      withLoad({ ...one, copies: undefined }, { tokenLatencyMs }),
  };
  return chart({
    title: "Monthly cost by the latency that is allowed",
    caption: "Where the line is flat, memory and not latency sets the batch.",
    x: { title: "ms a token at most", scale: "log" },
    y: { title: "dollars a month" },
    series: seriesOf(input, sweep, ({ service }) => service?.dollarsPerMonth ?? null),
    rules: [{ name: "planned", axis: "x", value: input.load.tokenLatencyMs }],
  });
}

/** Charts of what moves the answer: the rate, the context, the latency. Those with nothing to show are left out. */
export function sensitivityCharts(input: PlanInput): Chart[] {
  const charts = [
    costByRate(input),
    byContext(
      input,
      [
        "Throughput by context",
        "output tokens a second of each GPU",
        "can no longer serve a single request in time",
      ],
      ({ service }) => service?.tokensPerSecondPerGpu ?? null,
    ),
    byContext(
      input,
      ["Sequences that fit by context", "sequences", "has no room for a single request"],
      ({ largestBatch }) => largestBatch || null,
    ),
    costByLatency(input),
  ];
  return charts.filter((one) => one !== null);
}
