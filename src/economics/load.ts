import { checkFinite, checkInteger } from "../base/checks.ts";

/** What is asked of a deployment. */
export interface Load {
  readonly requestsPerSecond: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  /** Milliseconds between two tokens of a request at most, prompts of others included. */
  readonly tokenLatencyMs: number;
  /** Milliseconds up to the first token at most, without queueing. */
  readonly firstTokenLatencyMs: number;
  /** Share of the rate that a copy could serve which is planned for; the rest absorbs bursts. */
  readonly utilisation: number;
}

/** Throws RangeError for rates, lengths and targets that mean nothing. */
export function checkLoad(load: Load): Load {
  if (checkFinite("requestsPerSecond", load.requestsPerSecond, { min: 0 }) === 0) {
    throw new RangeError("requestsPerSecond must be more than 0, got 0");
  }
  checkInteger("promptTokens", load.promptTokens, { min: 1 });
  checkInteger("outputTokens", load.outputTokens, { min: 1 });
  checkFinite("tokenLatencyMs", load.tokenLatencyMs, { min: 1e-6 });
  checkFinite("firstTokenLatencyMs", load.firstTokenLatencyMs, { min: 1e-6 });
  checkFinite("utilisation", load.utilisation, { min: 0.01, max: 1 });
  return load;
}

/** Tokens of a request at its end. */
export const requestTokens = ({ promptTokens, outputTokens }: Load): number => promptTokens + outputTokens;

/** Cached tokens of a request in the middle of its output. */
export const middleContext = ({ promptTokens, outputTokens }: Load): number =>
  promptTokens + outputTokens / 2;
