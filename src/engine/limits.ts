import { checkBoolean, checkInteger } from "../base/checks.ts";
import type { EngineOptions } from "./engine-types.ts";
import { ContextLengthError } from "./errors.ts";
import type { CheckedRequest } from "./request.ts";
import type { SchedulerOptions } from "./scheduler.ts";

/** The limits of an engine, all filled in. */
export interface EngineLimits extends SchedulerOptions {
  readonly maxContext: number;
  readonly maxWaiting: number;
  readonly maxUnreadTokens: number;
}

/** Fills in the defaults. Throws TypeError or RangeError for a limit of a wrong kind, or that the runner cannot serve. */
export function resolveLimits(options: EngineOptions): EngineLimits {
  const { runner } = options;
  const integer = (name: keyof EngineOptions, fallback: number, min: number, max = 2 ** 31 - 1) =>
    checkInteger(name, options[name] ?? fallback, { min, max });
  const { pageCount, pageSize, maxDecodeRows, maxChunkTokens } = runner;
  return {
    pageCount,
    pageSize,
    maxDecodeRows,
    maxChunkTokens,
    maxContext: Math.min(runner.maxContext, pageCount * pageSize),
    maxRunning: integer("maxRunning", Math.min(64, maxDecodeRows), 1, maxDecodeRows),
    maxWaiting: integer("maxWaiting", 1024, 0),
    maxPrefillTokens: integer("maxPrefillTokens", maxChunkTokens, 1),
    maxUnreadTokens: integer("maxUnreadTokens", 1024, 1),
    draftTokens: integer("draftTokens", 0, 0, 64),
    prefixReuse: checkBoolean("prefixReuse", options.prefixReuse ?? true),
  };
}

/** Throws ContextLengthError or RangeError for a request that an engine of these options can never serve. */
export function checkFit(request: CheckedRequest, options: EngineOptions, maxContext: number): void {
  const { promptIds, maxTokens, minTokens, stop } = request;
  if (promptIds.length + (maxTokens ?? 1) > maxContext) {
    throw new ContextLengthError(promptIds.length, maxTokens, maxContext);
  }
  if (maxTokens !== null && minTokens > maxTokens) {
    throw new RangeError(`minTokens must be at most maxTokens, got ${minTokens} and ${maxTokens}`);
  }
  if (stop.length > 0 && options.tokenizer === null) {
    throw new RangeError("stop must be empty for an engine without a tokenizer; give stopTokenIds");
  }
}
