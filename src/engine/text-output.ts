import type { IncrementalDetokenizer } from "../text/incremental-detokenizer.ts";
import { StopStringMatcher, type StopStringResult } from "../text/stop-strings.ts";

/** The text of one sequence: ids in, text out, ended by stop strings. */
export class TextOutput {
  readonly #detokenizer: IncrementalDetokenizer | null;
  readonly #matcher: StopStringMatcher;

  /** Without a detokenizer all text is empty. Throws as {@link StopStringMatcher} does. */
  constructor(detokenizer: IncrementalDetokenizer | null, stops: readonly string[], includeStop: boolean) {
    this.#detokenizer = detokenizer;
    this.#matcher = new StopStringMatcher(stops, { includeStop });
  }

  /** Takes the next id; without `matchStops` its text may hold stop strings. Throws RangeError for an unknown id. */
  push(tokenId: number, matchStops: boolean): StopStringResult {
    const text = this.#detokenizer?.push(tokenId) ?? "";
    return matchStops ? this.#matcher.push(text) : { text, stop: undefined };
  }

  /** Ends the text: what was held back. */
  finish(): string {
    const { text, stop } = this.#matcher.push(this.#detokenizer?.flush() ?? "");
    return stop === undefined ? text + this.#matcher.flush() : text;
  }
}
