import * as library from "@huggingface/tokenizers";
import { describe, expect, it } from "vitest";
import { createRandom } from "../base/random.ts";
import { compileDecoder } from "./decoder.ts";
import type { DecoderStep } from "./decoder-step.ts";

interface LibraryDecoder {
  decode(tokens: string[]): string;
}
const { SequenceDecoder } = library as unknown as {
  SequenceDecoder: new (config: object) => LibraryDecoder;
};

function run(step: DecoderStep, tokens: readonly string[]): string {
  return tokens.map((token) => step.push(token, false)).join("") + step.flush();
}

const replace = { type: "Replace", pattern: { String: "▁" }, content: " " };
const chains: [string, object[], string[]][] = [
  ["ByteFallback", [{ type: "ByteFallback" }], ["<0xE6>", "<0x9D>", "<0xB1>", "a", "▁b", "<0xFF>", "<0x4>"]],
  ["Metaspace", [{ type: "Metaspace", replacement: "▁" }], ["▁", "▁a", "b", "▁▁c", "d▁"]],
  [
    "Replace, ByteFallback, Fuse, Strip",
    [replace, { type: "ByteFallback" }, { type: "Fuse" }, { type: "Strip", content: " ", start: 1, stop: 0 }],
    ["▁", "▁a", "<0xC3>", "<0xA9>", "<0x20>", "b"],
  ],
  [
    "Fuse, Strip at both ends",
    [{ type: "Fuse" }, { type: "Strip", content: "_", start: 2, stop: 2 }],
    ["_", "__", "a", "_b", "___"],
  ],
  [
    "Strip each token",
    [{ type: "Strip", content: "_", start: 1, stop: 1 }],
    ["_", "__", "_a_", "b__", "___"],
  ],
  [
    "Replace by pattern",
    [{ type: "Replace", pattern: { Regex: "[aeiou]+" }, content: "o" }],
    ["queue", "b", "aeon"],
  ],
  [
    "ByteFallback, Metaspace",
    [{ type: "ByteFallback" }, { type: "Metaspace" }],
    ["<0xE2>", "<0x96>", "<0x81>", "▁a", "b"],
  ],
  ["Fuse, Replace", [{ type: "Fuse" }, replace], ["▁a", "b▁", "▁"]],
];

describe.each(chains)("%s", (_name, decoders, vocabulary) => {
  it("streams 500 random sequences to what the library makes of the whole", () => {
    const oracle = new SequenceDecoder({ type: "Sequence", decoders });
    const create = compileDecoder({ type: "Sequence", decoders: [{ type: "Sequence", decoders }] });
    const random = createRandom(17);
    const step = create();
    for (let round = 0; round < 500; round++) {
      const tokens = Array.from(
        { length: 1 + random.integer(9) },
        () => vocabulary[random.integer(vocabulary.length)]!,
      );
      expect(run(step, tokens), JSON.stringify(tokens)).toBe(oracle.decode(tokens));
    }
  });
});

describe("compileDecoder", () => {
  it("joins tokens with spaces when there is no decoder", () => {
    const step = compileDecoder(null)();
    expect([run(step, ["a", "b", "c"]), run(step, ["d", "e"])]).toEqual(["a b c", "d e"]);
  });

  it("keeps the first space where Metaspace never prepends one", () => {
    expect(run(compileDecoder({ type: "Metaspace", prepend_scheme: "never" })(), ["▁a", "▁b"])).toBe(" a b");
  });

  it("replaces by the text as it is written", () => {
    const config = { type: "Replace", pattern: { String: "a" }, content: "$&" };
    expect(run(compileDecoder(config)(), ["banana"])).toBe("b$&n$&n$&");
  });

  it("does not take a token for a byte by its first hexadecimal digit", () => {
    expect(run(compileDecoder({ type: "ByteFallback" })(), ["<0x4G>"])).toBe("<0x4G>");
  });

  it("keeps a byte order mark, in bytes and in tokens", () => {
    expect(run(compileDecoder({ type: "ByteFallback" })(), ["<0xEF>", "<0xBB>", "<0xBF>", "a"])).toBe(
      "\ufeffa",
    );
    expect(run(compileDecoder({ type: "ByteLevel" })(), ["ï»¿", "a"])).toBe("\ufeffa");
  });

  it("takes a byte-level token outside the byte alphabet as text", () => {
    expect(run(compileDecoder({ type: "ByteLevel" })(), ["Ġa", "<｜x｜>", "日 本"])).toBe(" a<｜x｜>日 本");
  });

  it.each([
    [{ type: "CTC" }, "CTC"],
    [{ type: "Sequence" }, "without its list"],
    [{ type: "Sequence", decoders: [{ type: "Fuse" }, { type: "ByteFallback" }] }, "ByteFallback"],
    [{ type: "Sequence", decoders: [{ type: "ByteFallback" }, { type: "Strip" }] }, "Strip"],
    [
      { type: "Sequence", decoders: [{ type: "Fuse" }, { type: "Replace", pattern: { String: "ab" } }] },
      "Replace",
    ],
    [{ type: "Replace" }, "without a pattern"],
    [{ type: "Replace", pattern: { Regex: "(" } }, "not supported"],
    ["ByteLevel", "not an object"],
  ])("rejects %j", (config, part) => {
    expect(() => compileDecoder(config)).toThrow(expect.objectContaining({ name: "UserError" }));
    expect(() => compileDecoder(config)).toThrow(part);
  });
});
