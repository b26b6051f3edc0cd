import type { DecoderStep } from "./decoder-step.ts";

/** Bytes to text, in pieces: U+FFFD for what is not UTF-8, exactly where a decoder of the whole would put it. */
function utf8Stream(): { write(bytes: Uint8Array): string; end(): string } {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let open = false;
  return {
    write: (bytes) => {
      open = true;
      return decoder.decode(bytes, { stream: true });
    },
    end: () => {
      if (!open) return "";
      open = false;
      return decoder.decode();
    },
  };
}

/**
 * GPT-2's byte alphabet: printable bytes stand for themselves, the other 68 for U+0100 and on in order of their value.
 * Indexed by UTF-16 unit; -1 where a unit stands for no byte.
 */
const byteOfUnit = ((): Int16Array => {
  const table = new Int16Array(256 + 68).fill(-1);
  let shifted = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    table[printable ? byte : shifted++] = byte;
  }
  return table;
})();

const encoder = new TextEncoder();

/** The bytes a byte-level token stands for; a token with a character outside the alphabet stands for its own UTF-8. */
function bytesOfToken(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = byteOfUnit[token.charCodeAt(i)] ?? -1;
    if (byte < 0) return encoder.encode(token);
    bytes[i] = byte;
  }
  return bytes;
}

/** The ByteLevel decoder: each character of a token is a byte; added tokens are text as they are. */
export function byteLevelStep(): DecoderStep {
  const utf8 = utf8Stream();
  return {
    push: (token, added) => (added ? utf8.end() + token : utf8.write(bytesOfToken(token))),
    flush: () => utf8.end(),
  };
}

/**
 * The ByteFallback decoder: tokens like `<0xE2>` are bytes, all others text. A run of bytes that is not UTF-8 becomes
 * one U+FFFD per broken sequence, so that the sound characters around it can be streamed; the Rust library gives one
 * for every byte of the whole run.
 */
export function byteFallbackStep(): DecoderStep {
  const utf8 = utf8Stream();
  return {
    push: (token) => {
      const hex = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
      return hex === undefined ? utf8.end() + token : utf8.write(Uint8Array.of(Number.parseInt(hex, 16)));
    },
    flush: () => utf8.end(),
  };
}
