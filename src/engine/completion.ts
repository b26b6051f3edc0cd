import type { SamplingParams } from "../kernels/sampling/params.ts";
import type { FinishEvent, FinishReason, OutputLogprob, TokensEvent } from "./events.ts";
import type { LogitsRules } from "./logits-rules.ts";
import type { CheckedRequest } from "./request.ts";
import type { Sequence } from "./sequence.ts";
import type { SequenceTimings } from "./statistics.ts";
import type { TextOutput } from "./text-output.ts";

/** What a completion is made of. */
export interface CompletionParts {
  readonly request: CheckedRequest;
  /** Which of the request's sequences. */
  readonly index: number;
  readonly sequence: Sequence;
  readonly rules: LogitsRules;
  readonly text: TextOutput;
  readonly eosTokenIds: ReadonlySet<number>;
  /** Milliseconds, as `performance.now()` tells. */
  readonly createdAt: number;
}

/** Output that a step added. */
export interface Output {
  readonly tokens: TokensEvent;
  /** Not null when the sequence is over. */
  readonly finish: FinishEvent | null;
}

interface End {
  readonly reason: FinishReason;
  readonly stop: string | number | null;
}

/** One sequence of a request from draw to text: takes the tokens of each step in and says when it is over. */
export class Completion {
  readonly index: number;
  readonly sequence: Sequence;
  readonly rules: LogitsRules;
  readonly #parts: CompletionParts;
  /** Milliseconds; null before the event. */
  #startedAt: number | null = null;
  #firstTokenAt: number | null = null;
  #lastTokenAt = 0;

  constructor(parts: CompletionParts) {
    this.#parts = parts;
    this.index = parts.index;
    this.sequence = parts.sequence;
    this.rules = parts.rules;
  }

  /** Parameters of the draw of output token `outputIndex`. */
  sampling(outputIndex: number): SamplingParams {
    const { temperature, topK, topP, minP, seed } = this.#parts.request;
    const ownSeed = (seed + this.index) % Number.MAX_SAFE_INTEGER;
    return { temperature, topK, topP, minP, seed: ownSeed, step: outputIndex };
  }

  /** Notes that a step includes it. */
  start(now: number): void {
    this.#startedAt ??= now;
  }

  /** Appends drawn tokens up to where the sequence ends. Throws RangeError for an id the tokenizer does not know. */
  accept(drawn: readonly number[]): Output {
    const { sequence, rules } = this;
    const tokenIds: number[] = [];
    const logprobs: OutputLogprob[] = [];
    let text = "";
    let end: End | null = null;
    for (const tokenId of drawn) {
      const logprob = rules.accept(sequence.outputLength, tokenId);
      if (logprob !== null) logprobs.push(logprob);
      sequence.tokens.push(tokenId);
      tokenIds.push(tokenId);
      const piece = this.#take(tokenId);
      text += piece.text;
      end = piece.end;
      if (end !== null) break;
    }
    const tokens: TokensEvent = { kind: "tokens", index: this.index, text, tokenIds, logprobs };
    return { tokens, finish: end === null ? null : this.#finish(end) };
  }

  /** Seconds since the output before, or since the start for the first, and which of the two it is. */
  noteOutput(now: number): { isFirst: boolean; seconds: number } {
    const isFirst = this.#firstTokenAt === null;
    const since = isFirst ? this.#parts.createdAt : this.#lastTokenAt;
    this.#firstTokenAt ??= now;
    this.#lastTokenAt = now;
    return { isFirst, seconds: (now - since) / 1000 };
  }

  timings(reason: SequenceTimings["reason"], now: number): SequenceTimings {
    const { createdAt } = this.#parts;
    const sinceCreated = (time: number | null) => (time === null ? null : (time - createdAt) / 1000);
    return {
      reason,
      promptTokens: this.sequence.promptIds.length,
      cachedTokens: this.sequence.cachedTokens,
      completionTokens: this.sequence.outputLength,
      queueSeconds: sinceCreated(this.#startedAt),
      firstTokenSeconds: sinceCreated(this.#firstTokenAt),
      decodeSeconds: this.#firstTokenAt === null ? 0 : (this.#lastTokenAt - this.#firstTokenAt) / 1000,
      totalSeconds: (now - createdAt) / 1000,
    };
  }

  #take(tokenId: number): { text: string; end: End | null } {
    const { request, text, eosTokenIds } = this.#parts;
    const { outputLength, tokens, maxLength } = this.sequence;
    const mayStop = outputLength >= request.minTokens;
    const isStopId = request.stopTokenIds.has(tokenId);
    if (mayStop && (isStopId || (!request.ignoreEos && eosTokenIds.has(tokenId)))) {
      return { text: text.finish(), end: { reason: "stop", stop: isStopId ? tokenId : null } };
    }
    const piece = text.push(tokenId, mayStop);
    if (piece.stop !== undefined) return { text: piece.text, end: { reason: "stop", stop: piece.stop } };
    if (tokens.length < maxLength) return { text: piece.text, end: null };
    return { text: piece.text + text.finish(), end: { reason: "length", stop: null } };
  }

  #finish(end: End): FinishEvent {
    const { promptIds, cachedTokens, outputLength } = this.sequence;
    const usage = { promptTokens: promptIds.length, cachedTokens, completionTokens: outputLength };
    return { kind: "finish", index: this.index, ...end, usage };
  }
}
