import { cacheFormNames } from "./cache-forms.ts";
import type { FormPlan, Obstacle, Plan, PlanInput } from "./plan.ts";
import type { StepTime } from "./roofline.ts";
import { derivationsOf67, publishedCosts, scenarioAssumptions } from "./scenarios.ts";

/** Rows of text; the first is the head. */
export type Rows = readonly (readonly string[])[];

/** Three significant digits without exponent, thousands apart; small integers as they are. */
export function digits(value: number): string {
  if (Number.isInteger(value) && value < 1000) return String(value);
  if (value >= 1000) return Math.round(value).toLocaleString("en-US");
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

/** Dollars in whole numbers from 100 on. */
export const dollars = (value: number): string => `$${value >= 100 ? digits(value) : value.toFixed(2)}`;

const gigabytes = (bytes: number) => `${digits(bytes / 1e9)} GB`;
const percent = (share: number) => `${(100 * share).toFixed(0)} %`;

const obstacles: Readonly<Record<Obstacle, string>> = {
  weights: "weights do not fit",
  request: "a request does not fit",
  "first token": "first token too late",
  token: "tokens too slow",
};

/** What a form needs in words, where something stands in the way. */
export const obstacleText = ({ obstacle }: FormPlan): string =>
  obstacle === null ? "" : obstacles[obstacle];

/** Memory: what each form of the cache takes and how much fits. */
export function memoryRows({ forms }: Plan): Rows {
  const head = [
    "cache",
    "bytes a token",
    "weights a GPU",
    "left for the cache",
    "sequences",
    "longest context",
  ];
  const rows = forms.map((plan) => [
    cacheFormNames[plan.form],
    digits(plan.bytesPerToken),
    gigabytes(plan.capacity.weightBytes),
    plan.capacity.cacheBytes > 0 ? gigabytes(plan.capacity.cacheBytes) : "none",
    digits(plan.largestBatch),
    digits(plan.largestContext),
  ]);
  return [head, ...rows];
}

/** Service and cost of each form of the cache. */
export function costRows({ forms }: Plan): Rows {
  const head = ["cache", "batch", "ms/token", "first token ms", "tokens/s a GPU", "GPUs", "load", "$/month"];
  const rows = forms.map((plan) => {
    const { service } = plan;
    if (service === null) return [cacheFormNames[plan.form], "0", obstacleText(plan), "", "", "", "", ""];
    return [
      cacheFormNames[plan.form],
      digits(service.batch),
      digits(service.tokenLatencyMs),
      digits(service.firstTokenLatencyMs),
      digits(service.tokensPerSecondPerGpu),
      digits(service.gpus),
      percent(service.utilisation),
      dollars(service.dollarsPerMonth),
    ];
  });
  return [head, ...rows];
}

const parts = [
  "attention",
  "projections",
  "mlp",
  "experts",
  "head",
  "communication",
  "overhead",
  "total",
] as const;

/** Milliseconds of each part of a step, of every form that can serve. */
export function stepRows({ forms }: Plan, which: "decode" | "prefill"): Rows {
  const milliseconds = (step: StepTime) => parts.map((part) => digits(step[part] * 1e3));
  const rows = forms.flatMap(({ form, service }) =>
    service === null ? [] : [[cacheFormNames[form], ...milliseconds(service[which])]],
  );
  return [[`${which} step, ms`, ...parts], ...rows];
}

/** The published scenarios from the assumptions that give their saving. */
export function scenarioRows(): Rows {
  const head = ["requests/s", "attention", "GPUs", "$/month", "saving"];
  const rows = publishedCosts(scenarioAssumptions).map((cost) => [
    String(cost.requestsPerSecond),
    cost.name,
    digits(cost.gpus),
    dollars(cost.dollarsPerMonth),
    `${(100 * cost.saving).toFixed(1)} %`,
  ]);
  return [head, ...rows];
}

/** Where the published 67 % comes from. */
export function derivationRows(): Rows {
  const rows = derivationsOf67().map(({ text, value }) => [text, `${(100 * value).toFixed(1)} %`]);
  return [["where 67 % comes from", "saving"], ...rows];
}

const gpuCount = (count: number) => `${digits(count)} GPU${count === 1 ? "" : "s"}`;

/** The answer in words. */
export function findingsOf({ forms }: Plan, { load, deployment, model }: PlanInput): string[] {
  const [latent, , full] = forms as readonly [FormPlan, FormPlan, FormPlan];
  const asked = `${digits(load.requestsPerSecond)} requests a second of ${load.promptTokens} + ${load.outputTokens} tokens`;
  const smaller = full.bytesPerToken / latent.bytesPerToken;
  const size = `Its latent cache takes ${digits(latent.bytesPerToken)} bytes a token, ${digits(smaller)} times less than every head's keys and values.`;
  const { service } = latent;
  if (service === null) {
    return [
      `${model.name} cannot serve ${asked} on this: ${obstacleText(latent)} with a latent cache.`,
      size,
    ];
  }
  const enough = service.utilisation > 1 ? ", which is less than the load asks for" : "";
  const answer = `${model.name} on ${deployment.gpu.name}: ${asked} take ${gpuCount(service.gpus)} and ${dollars(service.dollarsPerMonth)} a month with a latent cache${enough}.`;
  const others = forms.slice(1).map((plan) => {
    if (plan.service === null)
      return `with a ${cacheFormNames[plan.form]} cache: not at all (${obstacleText(plan)})`;
    const saving = 1 - service.gpus / plan.service.gpus;
    return `with a ${cacheFormNames[plan.form]} cache: ${gpuCount(plan.service.gpus)} (the latent cache saves ${percent(saving)})`;
  });
  return [answer, `The same load ${others.join("; ")}.`, size];
}
