import { cacheFootprint } from "../engine/cache-footprint.ts";
import type { GeneratedText } from "../engine/generate-text.ts";
import type { ModelSession } from "./model-session.ts";
import { formatBytes, note, paintError } from "./output.ts";

/** The figures of one text as a script wants them. */
export interface TextReport {
  readonly text: string;
  readonly finishReason: string;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly seed: number;
  readonly loadMs: number;
  readonly timeToFirstTokenMs: number;
  readonly prefillTokensPerSecond: number;
  readonly decodeTokensPerSecond: number;
  readonly weightBytes: number;
  readonly cache: {
    readonly dtype: string;
    readonly bytesPerTokenAndLayer: number;
    readonly bytesPerToken: number;
    readonly fullHeadsBytesPerToken: number;
    readonly timesSmaller: number;
  };
  readonly device: string;
}

/** Gathers the figures of one text. */
export function reportText(session: ModelSession, result: GeneratedText, seed: number): TextReport {
  const { model, device, loadMs } = session;
  const { timing } = result;
  return {
    text: result.text,
    finishReason: result.finishReason,
    promptTokens: result.promptTokens,
    outputTokens: result.tokenIds.length,
    seed,
    loadMs,
    timeToFirstTokenMs: timing.firstTokenMs,
    prefillTokensPerSecond: timing.prefillTokensPerSecond,
    decodeTokensPerSecond: timing.decodeTokensPerSecond,
    weightBytes: model.weightBytes,
    cache: cacheFootprint(model.config, model.runner.pool.shape.dtype),
    device: `${device.kind}: ${device.name}`,
  };
}

const rate = (value: number) => `${value < 10 ? value.toFixed(1) : value.toFixed(0)} tokens/s`;
const time = (ms: number) => (ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(1)} s`);

const endings: Record<string, string> = {
  stop: "ended by itself",
  length: "ended by the token limit",
  cancelled: "cut off",
};

/** Prints a summary of one text to standard error. */
export function printSummary(report: TextReport): void {
  const { cache } = report;
  const rows = [
    ["prefill", `${report.promptTokens} tokens at ${rate(report.prefillTokensPerSecond)}`],
    ["first token", `after ${time(report.timeToFirstTokenMs)}`],
    [
      "decode",
      `${report.outputTokens} tokens at ${rate(report.decodeTokensPerSecond)}, ${endings[report.finishReason]}`,
    ],
    [
      "cache",
      `${formatBytes(cache.bytesPerToken)} a token (${cache.dtype}, ${cache.bytesPerTokenAndLayer} B a token and layer): ` +
        `${cache.timesSmaller.toFixed(1)}× smaller than ` +
        `every head's keys and values (${formatBytes(cache.fullHeadsBytesPerToken)})`,
    ],
    [
      "model",
      `${formatBytes(report.weightBytes)} of weights, loaded in ${time(report.loadMs)}, seed ${report.seed}`,
    ],
    ["device", report.device],
  ];
  const lines = rows.map(([name = "", text = ""]) => `${paintError.dim(name.padEnd(12))} ${text}`);
  note(lines.join("\n"));
}
