import type { ToolFormat, WrittenCall } from "./tool-formats.ts";

/** What a piece of text came to. */
export interface ReadPiece {
  readonly content: string;
  readonly calls: readonly WrittenCall[];
}

/** The length of the longest end of `text` that `marker` begins with, short of the whole marker. */
function beginning(text: string, marker: string): number {
  for (let length = Math.min(marker.length - 1, text.length); length > 0; length--) {
    if (text.endsWith(marker.slice(0, length))) return length;
  }
  return 0;
}

/**
 * Splits streamed text into what is for the reader and calls of tools. It holds back a call until it is complete, and
 * before it only what may be the beginning of one. What cannot be read as a call is text after all.
 */
export class ToolReader {
  readonly #format: ToolFormat;
  #text = "";
  #isInside = false;
  #calls = 0;

  constructor(format: ToolFormat) {
    this.#format = format;
  }

  /** Takes the next piece of text. */
  push(piece: string): ReadPiece {
    this.#text += piece;
    let content = "";
    const calls: WrittenCall[] = [];
    for (;;) {
      const { begin, end } = this.#format;
      const marker = this.#isInside ? end : begin;
      const at = marker === null ? -1 : this.#text.indexOf(marker);
      if (at < 0 || marker === null) break;
      const before = this.#text.slice(0, at);
      this.#text = this.#text.slice(at + marker.length);
      if (this.#isInside) {
        const read = this.#format.parse(before);
        if (read === null) content += begin + before + marker;
        calls.push(...(read ?? []));
        this.#calls += read?.length ?? 0;
      } else content += this.#visible(before);
      this.#isInside = !this.#isInside;
    }
    if (!this.#isInside) {
      const held = beginning(this.#text, this.#format.begin);
      content += this.#visible(this.#text.slice(0, this.#text.length - held));
      this.#text = held === 0 ? "" : this.#text.slice(-held);
    }
    return { content, calls };
  }

  /** Ends the text and returns what was held back. */
  flush(): ReadPiece {
    const rest = this.#text;
    this.#text = "";
    if (!this.#isInside) return { content: this.#visible(rest), calls: [] };
    this.#isInside = false;
    const read = this.#format.end === null ? this.#format.parse(rest) : null;
    return { content: read === null ? this.#format.begin + rest : "", calls: read ?? [] };
  }

  /** The blank lines between two calls say nothing. */
  #visible(text: string): string {
    return this.#calls > 0 && text.trim() === "" ? "" : text;
  }
}
