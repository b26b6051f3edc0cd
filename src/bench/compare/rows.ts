import type { Ceilings } from "../ceilings.ts";
import type { CompareCell } from "./attention-buffers.ts";
import type { CompareFormId } from "./shapes.ts";

/** One layer's attention, or the whole model from token ids to logits. */
export type CompareScope = "attention" | "model";

/** A row's figures. */
export interface MeasuredOutcome {
  readonly status: "measured";
  /** Median time of a step, which gives every sequence one token: what each of them waits. */
  readonly milliseconds: number;
  /** Of all sequences together. */
  readonly tokensPerSecond: number;
  /** Device memory in use while it ran. */
  readonly peakBytes: number;
  readonly runs: number;
  /** The best time of scores, softmax and values alone; for rows of one layer's attention. */
  readonly kernelMilliseconds?: number;
  /** What the device read and computed a second at most around that time; null where it cannot be measured. */
  readonly ceilings?: Ceilings | null;
}

/** What became of a row: measured, or why not. */
export type CompareOutcome =
  | MeasuredOutcome
  | { readonly status: "no memory" | "no time" | "interrupted" | "failed"; readonly reason: string };

/** One form at one context and batch. */
export interface CompareRow extends CompareCell {
  readonly scope: CompareScope;
  readonly form: CompareFormId;
  /** Of all layers that the scope runs: arithmetic, so it is known for rows that were not measured too. */
  readonly cacheBytes: number;
  readonly outcome: CompareOutcome;
}
