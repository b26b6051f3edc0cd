import type { PageCopy } from "../cache/paged-latent-cache.ts";
import type { Sequence } from "./sequence.ts";

/** Rows of one sequence in the decode call of a step: consecutive tokens from `position` on. */
export interface DecodeWork {
  readonly sequence: Sequence;
  readonly position: number;
  /** Tokens the sequence has, then guesses at the next ones. */
  readonly tokenIds: readonly number[];
  /** How many of `tokenIds`, at the end, are guesses. */
  readonly drafts: number;
  /** Whether tokens are drawn: from the row of the sequence's newest token and from the rows of guesses. */
  readonly draws: boolean;
  /** One per token. */
  readonly slots: Int32Array;
}

/** A chunk of one sequence's prompt. */
export interface PrefillWork {
  readonly sequence: Sequence;
  readonly position: number;
  readonly tokenIds: readonly number[];
  /** Whether a token is drawn from the last row: the chunk ends the prompt of a sequence without output. */
  readonly draws: boolean;
  /** One per token. */
  readonly slots: Int32Array;
}

/** What one step does, in this order. */
export interface StepPlan {
  readonly copies: readonly PageCopy[];
  readonly decodes: readonly DecodeWork[];
  readonly prefills: readonly PrefillWork[];
}

/** Tokens drawn in a step, by the place of their work in the plan. */
export interface StepDraws {
  /** None for work that draws none; otherwise one, and one more for each guess. */
  readonly decodes: readonly (readonly number[])[];
  readonly prefills: readonly (number | null)[];
}

/** Output tokens that a step adds to a sequence. */
export interface SequenceTokens {
  readonly sequence: Sequence;
  readonly tokenIds: readonly number[];
}
