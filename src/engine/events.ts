/**
 * Why a sequence ended: `stop` for an end-of-sequence token, a stop id or a stop string; `length` for `maxTokens` or a
 * full context.
 */
export type FinishReason = "stop" | "length";

/** A token and its natural logarithm of probability, from the model's own logits (temperature 1, no penalties). */
export interface TokenLogprob {
  readonly tokenId: number;
  readonly logprob: number;
}

/** The log-probability of an output token, and of the likeliest ones at its place. */
export interface OutputLogprob extends TokenLogprob {
  /** The `logprobs` likeliest tokens, likeliest first; equal ones by id. */
  readonly top: readonly TokenLogprob[];
}

/** Output of one sequence; what was not read yet comes as one event. */
export interface TokensEvent {
  readonly kind: "tokens";
  /** Which of the request's `n` sequences. */
  readonly index: number;
  /** Text that these ids completed; may be empty, and lags the ids while a stop string may be beginning. */
  readonly text: string;
  readonly tokenIds: readonly number[];
  /** One for each id; empty unless the request asked for them. */
  readonly logprobs: readonly OutputLogprob[];
}

/** The last event of one sequence. */
export interface FinishEvent {
  readonly kind: "finish";
  readonly index: number;
  readonly reason: FinishReason;
  /** The stop string or stop id that ended it; null for an end-of-sequence token or `length`. */
  readonly stop: string | number | null;
  readonly usage: Usage;
}

/** Tokens of one sequence. */
export interface Usage {
  readonly promptTokens: number;
  /** Of the prompt, tokens found in the cache. */
  readonly cachedTokens: number;
  /** Output, a final end-of-sequence or stop token included. */
  readonly completionTokens: number;
}

/** What `Engine.generate` yields. */
export type GenerateEvent = TokensEvent | FinishEvent;
