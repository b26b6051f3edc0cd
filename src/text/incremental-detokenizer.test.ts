import { afterEach, describe, expect, it, vi } from "vitest";
import { byteLevel, goldens } from "../../tests/golden/tokenizer/golden.ts";
import { createRandom } from "../base/random.ts";
import { byteLevelStep } from "./byte-decoders.ts";
import { IncrementalDetokenizer } from "./incremental-detokenizer.ts";
import { loadTokenizer, type Tokenizer } from "./tokenizer.ts";

const small = loadTokenizer({ tokenizerJson: byteLevel.tokenizer });
const tokenizers: [string, Tokenizer][] = [
  ["byte level", small],
  ...Object.entries(goldens).map(([name, golden]): [string, Tokenizer] => [
    name,
    loadTokenizer({ tokenizerJson: golden.tokenizer, tokenizerConfig: golden.config }),
  ]),
];

function streamAll(tokenizer: Tokenizer, ids: Iterable<number>, skipSpecialTokens: boolean): string[] {
  const stream = tokenizer.stream({ skipSpecialTokens });
  return [...Array.from(ids, (id) => stream.push(id)), stream.flush()];
}

afterEach(() => vi.restoreAllMocks());

describe.each(tokenizers)("%s", (_name, tokenizer) => {
  it("gives pieces that join to the decoded whole, for 300 random sequences", () => {
    const random = createRandom(11);
    for (let run = 0; run < 300; run++) {
      const ids = Array.from({ length: random.integer(50) }, () => random.integer(tokenizer.vocabSize));
      for (const skipSpecialTokens of [true, false]) {
        const pieces = streamAll(tokenizer, ids, skipSpecialTokens);
        expect(pieces.join("")).toBe(tokenizer.decode(ids, { skipSpecialTokens }));
        for (const piece of pieces) expect(piece).not.toMatch(/\p{Surrogate}/u);
      }
    }
  });

  it.each(["東京 🚀 👩‍👩‍👧 ok", "a  two spaces", "Ünïcödé"])("shows no U+FFFD on the way to %s", (text) => {
    const ids = tokenizer.encode(text);
    const pieces = streamAll(tokenizer, ids, true);
    for (const piece of pieces) expect(piece).not.toContain("\ufffd");
    expect(pieces.join("")).toBe(tokenizer.decode(ids));
    if (!ids.includes(tokenizer.unkId ?? -1)) expect(pieces.join("")).toBe(text);
  });
});

describe("byte level", () => {
  const idsOfBytes = (...bytes: number[]) =>
    bytes.map((byte) => {
      const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
      const hidden = Array.from({ length: 256 }, (_, b) => b).filter(
        (b) => !((b > 32 && b < 127) || (b > 160 && b !== 173)),
      );
      return small.idOf(String.fromCharCode(printable ? byte : 256 + hidden.indexOf(byte)))!;
    });

  it("emits a character with its last byte", () => {
    expect(streamAll(small, idsOfBytes(0xf0, 0x9f, 0x9a, 0x80, 0x41), true)).toEqual([
      "",
      "",
      "",
      "🚀",
      "A",
      "",
    ]);
  });

  it("replaces a broken character as soon as it is known to be broken", () => {
    expect(streamAll(small, idsOfBytes(0xf0, 0x9f, 0x41, 0xff, 0xe6, 0x9d), true)).toEqual([
      "",
      "",
      "\ufffdA",
      "\ufffd",
      "",
      "",
      "\ufffd",
    ]);
  });

  it("decodes 2,000 random byte strings as TextDecoder does", () => {
    const random = createRandom(5);
    const interesting = [0x41, 0x80, 0xbf, 0xc2, 0xe0, 0xa0, 0xed, 0xef, 0xbb, 0xf0, 0x90, 0xf4, 0x8f, 0xff];
    for (let run = 0; run < 2000; run++) {
      const bytes = Array.from(
        { length: random.integer(12) },
        () => interesting[random.integer(interesting.length)]!,
      );
      const expected = new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));
      expect(streamAll(small, idsOfBytes(...bytes), true).join("")).toBe(expected);
    }
  });

  it("joins a character around a skipped special token and breaks it around a shown one", () => {
    const ids = [...idsOfBytes(0xc3), 2, ...idsOfBytes(0xa9)];
    expect(streamAll(small, ids, true)).toEqual(["", "", "é", ""]);
    expect(streamAll(small, ids, false)).toEqual(["", "\ufffd<eos>", "\ufffd", ""]);
  });

  it("starts afresh after flush", () => {
    const stream = small.stream();
    expect([stream.push(idsOfBytes(0xc3)[0]!), stream.flush(), stream.flush()]).toEqual(["", "\ufffd", ""]);
    expect(stream.push(idsOfBytes(0xa9)[0]!)).toBe("\ufffd");
  });

  it("keeps its state when an id is rejected", () => {
    const stream = small.stream();
    stream.push(idsOfBytes(0xc3)[0]!);
    for (const id of [-1, 0.5, small.vocabSize]) expect(() => stream.push(id)).toThrow(RangeError);
    expect(() => stream.push("3" as unknown as number)).toThrow(TypeError);
    expect(stream.push(idsOfBytes(0xa9)[0]!)).toBe("é");
  });
});

describe("work for 20,000 tokens", () => {
  it.each([
    ["random ids", (random: () => number) => random()],
    ["continuation bytes alone", () => small.idOf("Ģ")!],
  ] as const)("decodes each byte once: %s", (_name, next) => {
    const decode = vi.spyOn(TextDecoder.prototype, "decode");
    const lookups: number[] = [];
    const random = createRandom(2);
    const stream = new IncrementalDetokenizer({
      vocabSize: small.vocabSize,
      entryOf: (id) => {
        lookups.push(id);
        return { token: small.tokenOf(id)!, kind: "regular" };
      },
      decoder: byteLevelStep(),
      skipSpecialTokens: true,
    });
    let units = 0;
    for (let i = 0; i < 20_000; i++) {
      const id = next(() => random.integer(small.vocabSize));
      units += small.tokenOf(id)!.length;
      stream.push(id);
    }
    expect(lookups).toHaveLength(20_000);
    const decoded = decode.mock.calls.reduce((sum, [bytes]) => sum + (bytes?.byteLength ?? 0), 0);
    expect(decoded).toBe(units);
  });
});
