import type { FinishReason } from "./events.ts";

/** State and running totals of an engine. */
export interface EngineStatistics {
  /** Sequences in the batch now. */
  readonly running: number;
  /** Sequences in the queue now, preempted ones included. */
  readonly waiting: number;
  /** Sequences held back now because nobody reads their output. */
  readonly paused: number;
  readonly pageCount: number;
  /** Pages that sequences hold now. */
  readonly usedPages: number;
  /** Pages free for any use that still hold a prompt which may come again. */
  readonly reusablePages: number;
  readonly steps: number;
  readonly failedSteps: number;
  readonly preemptions: number;
  /** Tokens computed for prompts, recomputation included. */
  readonly prefillTokens: number;
  /** Prompt tokens of sequences that were admitted. */
  readonly promptTokens: number;
  /** Of those, tokens found in the cache. */
  readonly cachedTokens: number;
  readonly completionTokens: number;
  /** Steps of a sequence that checked drafted tokens. */
  readonly drafts: number;
  /** Tokens a drafter proposed, and those of them that were right. */
  readonly draftedTokens: number;
  readonly acceptedTokens: number;
  readonly pageCopies: number;
  /** Sequences that ended, by reason; aborted and failed ones apart. */
  readonly finished: Readonly<Record<FinishReason | "abort" | "error", number>>;
}

/** How one sequence fared; all times in seconds. */
export interface SequenceTimings {
  readonly reason: FinishReason | "abort" | "error";
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  /** From `generate` to the first step it is part of; null when it never was. */
  readonly queueSeconds: number | null;
  /** From `generate` to the first token; null when none was drawn. */
  readonly firstTokenSeconds: number | null;
  /** From the first token to the last. */
  readonly decodeSeconds: number;
  /** From `generate` to the end. */
  readonly totalSeconds: number;
}

/** A request whose sequences all ended. */
export interface RequestSummary {
  /** Sequences it asked for. */
  readonly n: number;
  /** Output tokens it allowed each; null when the context was the limit. */
  readonly maxTokens: number | null;
  /** Output tokens of its longest sequence. */
  readonly longestOutput: number;
}

/** What one step did; times in seconds. */
export interface StepTimings {
  readonly decodeRows: number;
  readonly prefillTokens: number;
  readonly scheduleSeconds: number;
  readonly runSeconds: number;
  readonly postprocessSeconds: number;
}

/** Callbacks for histograms; they run inside the step and must not throw. */
export interface EngineObserver {
  firstToken?(seconds: number): void;
  /** Time between two outputs of one sequence; `tokens` came at once. */
  nextTokens?(seconds: number, tokens: number): void;
  sequenceEnd?(timings: SequenceTimings): void;
  /** After the last `sequenceEnd` of a request. */
  requestEnd?(summary: RequestSummary): void;
  stepEnd?(timings: StepTimings): void;
}
