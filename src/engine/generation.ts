import type { Tokenizer } from "../text/tokenizer.ts";
import { Completion } from "./completion.ts";
import { EventStream } from "./event-stream.ts";
import { dependsOnOutput, LogitsRules } from "./logits-rules.ts";
import type { CheckedRequest } from "./request.ts";
import { Sequence } from "./sequence.ts";
import type { RequestSummary } from "./statistics.ts";
import { TextOutput } from "./text-output.ts";

/** What the engine gives to each of its requests. */
export interface GenerationContext {
  readonly tokenizer: Pick<Tokenizer, "stream"> | null;
  readonly eosTokenIds: ReadonlySet<number>;
  readonly maxContext: number;
  readonly maxUnreadTokens: number;
  /** Number of its first sequence; the others follow. */
  readonly firstOrder: number;
  readonly now: number;
  /** Called when output is read again that was not for a while. */
  onResume(): void;
  /** Called once when the reader leaves or the signal aborts, before the end. */
  onAbort(generation: Generation): void;
}

/** One request at work: its sequences, and the stream its reader holds. */
export class Generation {
  readonly completions: readonly Completion[];
  readonly stream: EventStream;
  readonly #context: GenerationContext;
  readonly #signal: AbortSignal | null;
  readonly #maxTokens: number | null;
  #open: number;

  /** Throws as the constructors of stop strings and the request's constraint do. */
  constructor(request: CheckedRequest, context: GenerationContext) {
    this.#context = context;
    this.#signal = request.signal;
    this.#maxTokens = request.maxTokens;
    this.completions = Array.from({ length: request.n }, (_, index) =>
      createCompletion(request, index, context),
    );
    this.#open = request.n;
    this.stream = new EventStream(
      (index) => this.#resume(index),
      () => this.#leave(),
    );
    this.#signal?.addEventListener("abort", this.#abort);
  }

  /** Whether it takes no more output. */
  get isOver(): boolean {
    return this.#open === 0;
  }

  get summary(): RequestSummary {
    const longestOutput = Math.max(...this.completions.map(({ sequence }) => sequence.outputLength));
    return { n: this.completions.length, maxTokens: this.#maxTokens, longestOutput };
  }

  /** Passes output on; holds the sequence back when too much of it lies unread. */
  push({ index, sequence }: Completion, { tokens, finish }: ReturnType<Completion["accept"]>): void {
    this.stream.push(tokens);
    if (finish === null) {
      sequence.held = this.stream.unreadTokens(index) >= this.#context.maxUnreadTokens;
      return;
    }
    this.stream.push(finish);
    this.#open--;
    if (this.isOver) this.#close();
  }

  /** Ends it with an error; ignored when it is over. */
  fail(error: unknown): void {
    if (this.isOver) return;
    this.#open = 0;
    this.stream.fail(error);
    this.#close();
  }

  #close(): void {
    this.#signal?.removeEventListener("abort", this.#abort);
    this.stream.end();
  }

  readonly #abort = (): void => {
    this.fail(this.#signal!.reason);
    this.#context.onAbort(this);
  };

  #leave(): void {
    this.#open = 0;
    this.#close();
    this.#context.onAbort(this);
  }

  #resume(index: number): void {
    const { sequence } = this.completions[index]!;
    if (!sequence.held) return;
    sequence.held = false;
    this.#context.onResume();
  }
}

function createCompletion(request: CheckedRequest, index: number, context: GenerationContext): Completion {
  const { promptIds, maxTokens, priority, client, stopTokenIds, ignoreEos, stop, includeStop } = request;
  const sequence = new Sequence({
    promptIds,
    maxLength: maxTokens === null ? context.maxContext : promptIds.length + maxTokens,
    priority,
    client,
    order: context.firstOrder + index,
    mayDraft: !dependsOnOutput(request),
  });
  const endIds = [...stopTokenIds, ...(ignoreEos ? [] : context.eosTokenIds)];
  const { skipSpecialTokens } = request;
  const detokenizer = context.tokenizer?.stream({ skipSpecialTokens }) ?? null;
  return new Completion({
    request,
    index,
    sequence,
    rules: new LogitsRules(request, endIds, request.constraint?.(index) ?? null),
    text: new TextOutput(detokenizer, stop, includeStop),
    eosTokenIds: context.eosTokenIds,
    createdAt: context.now,
  });
}
