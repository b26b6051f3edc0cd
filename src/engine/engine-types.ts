import type { Tokenizer } from "../text/tokenizer.ts";
import type { GenerateEvent } from "./events.ts";
import type { GenerateRequest } from "./request.ts";
import type { Runner } from "./runner-types.ts";
import type { EngineObserver, EngineStatistics } from "./statistics.ts";

/** What an engine is made of, and its limits. A limit left out or undefined has the default named here. */
export interface EngineOptions {
  readonly runner: Runner;
  /** Makes text of ids; null leaves every `text` empty, and stop strings are refused. */
  readonly tokenizer: Pick<Tokenizer, "stream"> | null;
  /** Ids that end the output unless a request ignores them. */
  readonly eosTokenIds: readonly number[];
  /** Sequences in the batch, up to the runner's decode rows; 64 or what the runner takes. */
  readonly maxRunning?: number | undefined;
  /** Sequences that may wait; 1024. */
  readonly maxWaiting?: number | undefined;
  /** Prompt tokens computed in one step beside the decode rows: less makes streams smoother; the runner's chunk. */
  readonly maxPrefillTokens?: number | undefined;
  /** Output tokens of a sequence that may lie unread before it is held back; 1024. */
  readonly maxUnreadTokens?: number | undefined;
  /** Tokens proposed per sequence and step by repetition of what came before; 0 turns it off; 0. */
  readonly draftTokens?: number | undefined;
  /** Whether prompts share what the cache holds of earlier ones; true. */
  readonly prefixReuse?: boolean | undefined;
  readonly observer?: EngineObserver | undefined;
  /**
   * Called when a step rejects with DeviceLostError: opens the device anew and gives a runner of the same sizes. Every sequence starts over
   * on it, to the same bits, so nothing is lost but the step. Without it, where it rejects, and where the very next step is lost as
   * well, the requests of the step end with StepError.
   */
  readonly reopen?: (() => Promise<Runner>) | undefined;
}

/** What a server needs of an engine. */
export interface GenerationEngine {
  /** Tokens one sequence may have, prompt and output together. */
  readonly maxContext: number;
  /**
   * Queues a request at once and yields its output: `tokens` events in order within each index, one `finish` event per
   * index, then the end. Leaving the loop cancels the request. Throws TypeError or RangeError for a field of a wrong
   * kind or value, ContextLengthError, QueueFullError or EngineClosedError; the iteration rejects with StepError when a
   * step fails, with EngineClosedError when the engine closes, and with the signal's reason.
   */
  generate(request: GenerateRequest): AsyncIterableIterator<GenerateEvent>;
  statistics(): EngineStatistics;
  /** Takes no more requests and resolves when those at hand have ended. */
  drain(): Promise<void>;
  /** Takes no more requests, ends those at hand with EngineClosedError and resolves when no step is under way. */
  close(): Promise<void>;
}
