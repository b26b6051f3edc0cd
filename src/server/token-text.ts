import type { Tokenizer } from "../text/tokenizer.ts";

type Spelling = Pick<Tokenizer, "idOf" | "tokenOf" | "specialIds">;

/** GPT-2's table: printable bytes stand for themselves, the rest for the characters from U+0100 on. */
function byteCharacters(): ReadonlyMap<string, number> {
  const table = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    table.set(String.fromCodePoint(printable ? byte : next++), byte);
  }
  return table;
}

const characters = byteCharacters();
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The bytes that a token stands for, alone: half a character is bytes too. Unknown ids have none. */
export function tokenBytes(tokenizer: Spelling, id: number): Uint8Array {
  const token = tokenizer.tokenOf(id) ?? "";
  if (tokenizer.specialIds.has(id)) return encoder.encode(token);
  const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
  if (byte !== undefined) return Uint8Array.of(Number.parseInt(byte, 16));
  if (tokenizer.idOf("Ġ") !== undefined) {
    const bytes = [...token].map((character) => characters.get(character));
    if (bytes.every((one) => one !== undefined)) return Uint8Array.from(bytes);
  }
  return encoder.encode(token.replaceAll("▁", " "));
}

/** The text of one token, U+FFFD where its bytes are not UTF-8. */
export function tokenText(tokenizer: Spelling, id: number): string {
  return decoder.decode(tokenBytes(tokenizer, id));
}
