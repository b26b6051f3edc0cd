import { HOURS_A_MONTH } from "./plan.ts";

/** A row of the published comparison on an A100 with a 7B model: tokens a second of one sequence. */
export interface PublishedRow {
  readonly name: string;
  readonly tokensPerSecond: number;
}

/** The published throughputs: 1000 / 38.2, 22.1, 13.4 and 11.8 ms a token. */
export const publishedRows: readonly PublishedRow[] = [
  { name: "standard attention", tokensPerSecond: 26.2 },
  { name: "FlashAttention-2", tokensPerSecond: 45.2 },
  { name: "latent 512", tokensPerSecond: 74.6 },
  { name: "latent 256", tokensPerSecond: 84.7 },
];

/** The published scenarios. */
export const publishedScenarios = { requestsPerSecond: [10, 100, 1000], dollarsPerHour: 2.5 } as const;

/** What the published saving rests on, as far as it can be derived: the publication states none of it. */
export interface ScenarioAssumptions {
  /** Output tokens of a request. */
  readonly tokensPerRequest: number;
  /** Sequences that a GPU decodes at once, each at the published speed. */
  readonly sequencesPerGpu: number;
}

/**
 * Assumptions under which all three scenarios save about two thirds: 100 tokens a request, 16 sequences at once. Only their
 * ratio matters (6.25): 50 and 8, 200 and 32 give the same GPUs.
 */
export const scenarioAssumptions: ScenarioAssumptions = { tokensPerRequest: 100, sequencesPerGpu: 16 };

/** One row in one scenario. */
export interface ScenarioCost {
  readonly name: string;
  readonly requestsPerSecond: number;
  readonly gpus: number;
  readonly dollarsPerMonth: number;
  /** Beside standard attention, as a share. */
  readonly saving: number;
}

/**
 * GPUs = ⌈requests/s · tokens / (tokens/s · sequences)⌉ and their monthly cost at the published price, for every published
 * throughput and scenario.
 */
export function publishedCosts({ tokensPerRequest, sequencesPerGpu }: ScenarioAssumptions): ScenarioCost[] {
  return publishedScenarios.requestsPerSecond.flatMap((requestsPerSecond) => {
    const gpusOf = ({ tokensPerSecond }: PublishedRow) =>
      Math.ceil((requestsPerSecond * tokensPerRequest) / (tokensPerSecond * sequencesPerGpu));
    const standard = gpusOf(publishedRows[0]!);
    return publishedRows.map((row) => {
      const gpus = gpusOf(row);
      const dollarsPerMonth = gpus * publishedScenarios.dollarsPerHour * HOURS_A_MONTH;
      return { name: row.name, requestsPerSecond, gpus, dollarsPerMonth, saving: 1 - gpus / standard };
    });
  });
}

/** Saving of GPUs when one row's throughput replaces another's and GPUs are not rounded: 1 − slow / fast. */
export const savingWithoutRounding = (slow: PublishedRow, fast: PublishedRow): number =>
  1 - slow.tokensPerSecond / fast.tokensPerSecond;

/**
 * Where 67 % comes from, each way with its exact value: three GPUs that become one at 10 requests/s, which rounding makes of a
 * ratio of 2.85; the eight of 24 that latent 256 needs at 100; and the mean of both latent rows when GPUs are not rounded.
 */
export function derivationsOf67(): readonly { readonly text: string; readonly value: number }[] {
  const costs = publishedCosts(scenarioAssumptions);
  const saving = (name: string, rate: number) =>
    costs.find((cost) => cost.name === name && cost.requestsPerSecond === rate)!.saving;
  const exact = publishedRows.slice(2).map((row) => savingWithoutRounding(publishedRows[0]!, row));
  return [
    { text: "10 requests/s in whole GPUs, either latent: 1 of 3", value: saving("latent 512", 10) },
    { text: "100 requests/s in whole GPUs, latent 256: 8 of 24", value: saving("latent 256", 100) },
    { text: "latent 512 without rounding: 1 − 26.2 / 74.6", value: exact[0]! },
    { text: "latent 256 without rounding: 1 − 26.2 / 84.7", value: exact[1]! },
    { text: "the mean of these two", value: (exact[0]! + exact[1]!) / 2 },
  ];
}
