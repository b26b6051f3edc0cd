import { checkInteger } from "../base/checks.ts";
import type { DecoderStep } from "./decoder-step.ts";

/** What a token id stands for: `special` tokens can be left out of the text, `added` ones are text as they are. */
export interface TokenEntry {
  readonly token: string;
  readonly kind: "regular" | "added" | "special";
}

/** The parts an {@link IncrementalDetokenizer} is made of. */
export interface DetokenizerParts {
  /** One more than the highest id. */
  readonly vocabSize: number;
  /** What an id below `vocabSize` stands for; undefined for one that no token uses, which decodes to nothing. */
  readonly entryOf: (id: number) => TokenEntry | undefined;
  /** A decoder of its own, at its start. */
  readonly decoder: DecoderStep;
  /** Whether special tokens add nothing to the text. */
  readonly skipSpecialTokens: boolean;
}

/**
 * Turns token ids into text one at a time. It never emits part of a character, and the pieces of any sequence of ids
 * joined are the text of the whole sequence. The work of a token is proportional to that token's own text: nothing is
 * decoded twice, and no more is held back than an unfinished character or what a Strip decoder may cut off the end.
 */
export class IncrementalDetokenizer {
  readonly #parts: DetokenizerParts;

  constructor(parts: DetokenizerParts) {
    this.#parts = parts;
  }

  /**
   * Takes the next id and returns the text it completes, often "" or more than its own. Throws TypeError or RangeError
   * for an `id` that is not an integer from 0 up to the tokenizer's `vocabSize`, and then changes nothing.
   */
  push(id: number): string {
    const { vocabSize, entryOf, decoder, skipSpecialTokens } = this.#parts;
    const entry = entryOf(checkInteger("token id", id, { min: 0, max: vocabSize - 1 }));
    if (entry === undefined || (skipSpecialTokens && entry.kind === "special")) return "";
    return decoder.push(entry.token, entry.kind !== "regular");
  }

  /** Ends the text: returns what was held back (U+FFFD for an unfinished character) and starts a new one. */
  flush(): string {
    return this.#parts.decoder.flush();
  }
}
