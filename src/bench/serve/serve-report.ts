import type { RequestResult } from "./completion-client.ts";
import type { LoadOptions, LoadResult } from "./load.ts";

/** Milliseconds a request may take to count as good. */
export interface Goals {
  readonly ttft?: number;
  readonly tpot?: number;
  readonly e2el?: number;
}

/** Of some times in milliseconds. */
export interface Spread {
  readonly mean: number;
  readonly median: number;
  readonly p99: number;
}

/** What `vllm bench serve` reports, by the same definitions. */
export interface ServeReport {
  readonly completed: number;
  readonly failed: number;
  readonly seconds: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly requestsPerSecond: number;
  /** Requests within all goals a second; null without goals. */
  readonly goodput: number | null;
  readonly outputTokensPerSecond: number;
  /** Pieces of output in the fullest second, counted from the first request on. */
  readonly peakOutputTokensPerSecond: number;
  /** Requests under way in the fullest second. */
  readonly peakConcurrentRequests: number;
  readonly tokensPerSecond: number;
  /** Time to first token. */
  readonly ttft: Spread;
  /** (total − first) / (tokens − 1), by request. */
  readonly tpot: Spread;
  /** Between pieces of output, over all requests. */
  readonly itl: Spread;
  /** From sending to the last token. */
  readonly e2el: Spread;
}

/** The value below which `share` of the sorted `values` lie, interpolated as numpy does. */
function quantile(values: readonly number[], share: number): number {
  const at = (values.length - 1) * share;
  const [low, high] = [values[Math.floor(at)] ?? 0, values[Math.ceil(at)] ?? 0];
  return low + (high - low) * (at - Math.floor(at));
}

/** Mean, median and 99th percentile; zeros for none. */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const mean = sorted.reduce((sum, value) => sum + value, 0) / Math.max(1, sorted.length);
  return { mean, median: quantile(sorted, 0.5), p99: quantile(sorted, 0.99) };
}

const tpotOf = ({ totalMs, firstTokenMs, outputTokens }: RequestResult) =>
  (totalMs - firstTokenMs) / (outputTokens - 1);

function isGood(result: RequestResult, { ttft, tpot, e2el }: Goals): boolean {
  const within = (value: number, goal: number | undefined) => goal === undefined || value <= goal;
  const perToken = result.outputTokens > 1 ? tpotOf(result) : 0;
  return within(result.firstTokenMs, ttft) && within(perToken, tpot) && within(result.totalMs, e2el);
}

/** The fullest second of a load, by pieces of output and by requests under way in any part of it. */
function peaksOf(results: readonly RequestResult[]): { pieces: number; requests: number } {
  const start = Math.min(...results.map(({ sentAt }) => sentAt));
  const pieces = new Map<number, number>();
  const requests = new Map<number, number>();
  const count = (seconds: Map<number, number>, second: number) =>
    seconds.set(second, (seconds.get(second) ?? 0) + 1);
  for (const { sentAt, firstTokenMs, betweenMs, totalMs } of results) {
    const secondOf = (ms: number) => Math.floor((sentAt - start + ms) / 1000);
    let at = firstTokenMs;
    count(pieces, secondOf(at));
    for (const between of betweenMs) {
      at += between;
      count(pieces, secondOf(at));
    }
    for (let second = secondOf(0); second <= secondOf(totalMs); second++) count(requests, second);
  }
  return { pieces: Math.max(0, ...pieces.values()), requests: Math.max(0, ...requests.values()) };
}

/** Sums a load up. */
export function reportLoad({ seconds, results, failures }: LoadResult, goals: Goals): ServeReport {
  const sum = (of: (result: RequestResult) => number) => results.reduce((total, one) => total + of(one), 0);
  const inputTokens = sum((one) => one.inputTokens);
  const outputTokens = sum((one) => one.outputTokens);
  const peaks = peaksOf(results);
  const hasGoals = Object.values(goals).some((goal) => goal !== undefined);
  return {
    completed: results.length,
    failed: failures.length,
    seconds,
    inputTokens,
    outputTokens,
    requestsPerSecond: results.length / seconds,
    goodput: hasGoals ? results.filter((one) => isGood(one, goals)).length / seconds : null,
    outputTokensPerSecond: outputTokens / seconds,
    peakOutputTokensPerSecond: peaks.pieces,
    peakConcurrentRequests: peaks.requests,
    tokensPerSecond: (inputTokens + outputTokens) / seconds,
    ttft: spreadOf(results.map(({ firstTokenMs }) => firstTokenMs)),
    tpot: spreadOf(results.filter((one) => one.outputTokens > 1).map(tpotOf)),
    itl: spreadOf(results.flatMap(({ betweenMs }) => betweenMs)),
    e2el: spreadOf(results.map(({ totalMs }) => totalMs)),
  };
}

const WIDTH = 50;

function title(text: string, fill: string): string {
  const left = Math.floor((WIDTH - text.length) / 2);
  return fill.repeat(left) + text + fill.repeat(WIDTH - text.length - left);
}

const row = (label: string, value: number, digits = 2) => `${label.padEnd(40)} ${value.toFixed(digits)}`;

function spreadRows(heading: string, name: string, { mean, median, p99 }: Spread): string[] {
  return [
    title(heading, "-"),
    row(`Mean ${name} (ms):`, mean),
    row(`Median ${name} (ms):`, median),
    row(`P99 ${name} (ms):`, p99),
  ];
}

/** The report in the layout of `vllm bench serve`, with the limits of the load where they are given. */
export function formatReport(
  report: ServeReport,
  load: Partial<Pick<LoadOptions, "concurrency" | "rate">> = {},
): string {
  return [
    title(" Serving Benchmark Result ", "="),
    row("Successful requests:", report.completed, 0),
    row("Failed requests:", report.failed, 0),
    ...(load.concurrency === undefined ? [] : [row("Maximum request concurrency:", load.concurrency, 0)]),
    ...(Number.isFinite(load.rate ?? Number.NaN) ? [row("Request rate configured (RPS):", load.rate!)] : []),
    row("Benchmark duration (s):", report.seconds),
    row("Total input tokens:", report.inputTokens, 0),
    row("Total generated tokens:", report.outputTokens, 0),
    row("Request throughput (req/s):", report.requestsPerSecond),
    ...(report.goodput === null ? [] : [row("Request goodput (req/s):", report.goodput)]),
    row("Output token throughput (tok/s):", report.outputTokensPerSecond),
    row("Peak output token throughput (tok/s):", report.peakOutputTokensPerSecond),
    row("Peak concurrent requests:", report.peakConcurrentRequests),
    row("Total Token throughput (tok/s):", report.tokensPerSecond),
    ...spreadRows("Time to First Token", "TTFT", report.ttft),
    ...spreadRows("Time per Output Token (excl. 1st token)", "TPOT", report.tpot),
    ...spreadRows("Inter-token Latency", "ITL", report.itl),
    ...spreadRows("End-to-end Latency", "E2EL", report.e2el),
    "=".repeat(WIDTH),
  ].join("\n");
}
