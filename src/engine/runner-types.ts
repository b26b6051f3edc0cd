import type { SamplingParams } from "../kernels/sampling/params.ts";

/** Changes one row of logits, f32 [vocab], in place before its token is drawn, or only reads it. */
export type AdjustLogits = (logits: Float32Array) => void;

/** One token of one sequence, by absorbed attention: it sees the cache up to and with its own position. */
export interface DecodeRow {
  readonly tokenId: number;
  /** Place of the token in its sequence, from 0. */
  readonly position: number;
  /** Where its cache entry goes: page · pageSize + offset. */
  readonly slot: number;
  /** The block table of its sequence: the page of tokens pageSize·i … by i. Valid until the call resolves. */
  readonly pages: readonly number[];
  /** How the next token is drawn; null draws none. */
  readonly sampling: SamplingParams | null;
  /**
   * Says that the sequence is likely to go on with the drawn token, and that its cache has no entry at the next position yet: the
   * runner may begin that step before it is called for. Default: false.
   */
  readonly continues?: boolean;
}

/** Consecutive tokens of one sequence, by expanded attention over what the cache holds before them and themselves. */
export interface PrefillChunk {
  readonly tokenIds: readonly number[];
  /** Place of the first token in its sequence. */
  readonly position: number;
  /** Where the cache entries go, one per token: page · pageSize + offset. */
  readonly slots: ArrayLike<number>;
  /** The block table of the sequence. Valid until the call resolves. */
  readonly pages: readonly number[];
  /** How a token is drawn from the last row; null draws none. */
  readonly sampling: SamplingParams | null;
}

/**
 * Runs a model over the paged cache. A token's bits depend on the tokens before it and on the path that computed it
 * (prefill or decode) alone, never on the batch, nor on where chunks are cut.
 */
export interface Runner {
  /** Tokens of a page. */
  readonly pageSize: number;
  readonly pageCount: number;
  /** Rows of one `decode`. */
  readonly maxDecodeRows: number;
  /** Tokens of one `prefill`. */
  readonly maxChunkTokens: number;
  /** Tokens of one sequence, prompt and output together. */
  readonly maxContext: number;
  /** Length of a row of logits. */
  readonly vocabSize: number;
  /**
   * Runs 1…maxDecodeRows rows and resolves with a token id for each, −1 for rows that draw none. Rows of one sequence
   * with consecutive positions may stand in one call. `adjust`, by row, sees a row's logits before its token is drawn.
   * Rejects when the device fails; the next call may work.
   */
  decode(rows: readonly DecodeRow[], adjust?: ReadonlyMap<number, AdjustLogits>): Promise<Int32Array>;
  /** Runs one chunk and resolves with the token drawn from its last row, null when `sampling` is. Rejects as `decode`. */
  prefill(chunk: PrefillChunk, adjust?: AdjustLogits): Promise<number | null>;
  /** Copies all layers of a page, in order with the calls around it. */
  copyPage(from: number, to: number): void;
}
