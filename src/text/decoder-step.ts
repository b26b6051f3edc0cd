/**
 * One step of a decoder that turns tokens into text piece by piece. Over any sequence of tokens the pieces joined are
 * what the step makes of the whole sequence, and no piece ends inside a character.
 */
export interface DecoderStep {
  /** Takes the next piece; `added` marks a token of the added vocabulary. Returns the text that is final by now. */
  push(piece: string, added: boolean): string;
  /** Returns the text still held back and starts afresh. */
  flush(): string;
}
