import type { CachedSequence } from "../cache/paged-latent-cache.ts";

/** Where a sequence stands: in the queue, in the batch, held back because nobody reads its output, or over. */
export type SequenceStatus = "waiting" | "running" | "paused" | "ended";

/** What a sequence is made of. */
export interface SequenceOptions {
  readonly promptIds: readonly number[];
  /** Tokens it may have, prompt and output together. */
  readonly maxLength: number;
  readonly priority: number;
  readonly client: string;
  /** Number of its arrival: among equals the earlier one goes first. */
  readonly order: number;
  /** Whether drawn tokens depend on nothing but the tokens before them, so that drafts can be checked all at once. */
  readonly mayDraft: boolean;
}

/** One sequence as the scheduler sees it: tokens, and how many of them the cache holds. */
export class Sequence {
  readonly promptIds: readonly number[];
  readonly maxLength: number;
  readonly priority: number;
  readonly client: string;
  readonly order: number;
  readonly mayDraft: boolean;
  /** Prompt and output. */
  readonly tokens: number[];
  status: SequenceStatus = "waiting";
  /** Its place in the cache; null before it is admitted, and again after a preemption. */
  cached: CachedSequence | null = null;
  /** Set by whoever reads the output: true takes it out of the batch, false lets it come back. */
  held = false;
  /** Prompt tokens that the cache held when it was first admitted, or at a later page of the same prompt. */
  cachedTokens = 0;
  preemptions = 0;

  constructor(options: SequenceOptions) {
    this.promptIds = options.promptIds;
    this.maxLength = options.maxLength;
    this.priority = options.priority;
    this.client = options.client;
    this.order = options.order;
    this.mayDraft = options.mayDraft;
    this.tokens = [...options.promptIds];
  }

  get outputLength(): number {
    return this.tokens.length - this.promptIds.length;
  }

  /** Tokens in the cache. */
  get computed(): number {
    return this.cached?.length ?? 0;
  }

  /** Tokens not in the cache; at least 1, since the newest token gets there only with the step that draws the next. */
  get pending(): number {
    return this.tokens.length - this.computed;
  }

  /** Whether part of the prompt is not in the cache. Prompts are prefilled, output tokens always decoded. */
  get isPrefilling(): boolean {
    return this.computed < this.promptIds.length;
  }
}

/** Below 0 when `a` goes before `b`: by priority, then by arrival. */
export function comparePrecedence(
  a: Pick<Sequence, "priority" | "order">,
  b: Pick<Sequence, "priority" | "order">,
): number {
  return a.priority - b.priority || a.order - b.order;
}
