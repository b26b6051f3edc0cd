import { Tokenizer as Library } from "@huggingface/tokenizers";
import { describe, expect, it } from "vitest";
import { byteLevel, goldens } from "../../tests/golden/tokenizer/golden.ts";
import { createRandom } from "../base/random.ts";
import { fitsVocabulary, loadTokenizer } from "./tokenizer.ts";

const tokenizerJson = byteLevel.tokenizer;
const small = loadTokenizer({ tokenizerJson });

describe("golden byte-level tokenizer", () => {
  it.each(byteLevel.cases)("encodes and decodes $text", ({ text, ids, decoded }) => {
    expect([...small.encode(text)]).toEqual(ids);
    expect(small.decode(ids, { skipSpecialTokens: false })).toBe(decoded);
  });

  it("skips special tokens by default", () => {
    expect(small.decode(small.encode("<|User|>hello<|Assistant|>"))).toBe("hello");
  });

  it("decodes 200 random sequences as the library does", () => {
    const library = new Library(tokenizerJson, { clean_up_tokenization_spaces: false });
    const random = createRandom(3);
    for (let run = 0; run < 200; run++) {
      const ids = Array.from({ length: 1 + random.integer(60) }, () => random.integer(small.vocabSize));
      for (const skipSpecialTokens of [true, false]) {
        const expected = library.decode(ids, { skip_special_tokens: skipSpecialTokens });
        expect(small.decode(ids, { skipSpecialTokens })).toBe(expected);
      }
    }
  });

  it("looks tokens up both ways", () => {
    expect(small.idOf("<eos>")).toBe(2);
    expect(small.tokenOf(2)).toBe("<eos>");
    expect(small.idOf("no such token")).toBeUndefined();
    expect(small.tokenOf(small.vocabSize)).toBeUndefined();
    expect(small.tokenOf(-1)).toBeUndefined();
  });
});

describe.each(Object.entries(goldens))("golden %s tokenizer", (_name, golden) => {
  const tokenizer = loadTokenizer({ tokenizerJson: golden.tokenizer, tokenizerConfig: golden.config });

  it.each(golden.cases)("encodes $text", ({ text, ids, idsWithSpecial }) => {
    expect([...tokenizer.encode(text, { addSpecialTokens: false })]).toEqual(ids);
    expect([...tokenizer.encode(text)]).toEqual(idsWithSpecial);
  });

  it.each(golden.cases)("decodes the ids of $text", ({ ids, shown, skipped }) => {
    expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe(shown);
    expect(tokenizer.decode(ids)).toBe(skipped);
  });

  it.each(golden.random)("decodes random ids $ids", ({ ids, shown }) => {
    expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe(shown);
  });

  it("names its special tokens", () => {
    expect(tokenizer.bosId).toBe(tokenizer.idOf("<bos>"));
    expect(tokenizer.eosId).toBe(tokenizer.idOf("<eos>"));
    expect(tokenizer.unkId).toBe(tokenizer.idOf("<unk>"));
    expect(tokenizer.padId).toBeUndefined();
    expect(tokenizer.specialIds).toEqual(new Set([tokenizer.unkId, tokenizer.bosId, tokenizer.eosId]));
  });
});

describe("tokenizer_config.json", () => {
  const load = (tokenizerConfig: Record<string, unknown>) =>
    loadTokenizer({ tokenizerJson, tokenizerConfig });

  it("adds the bos and eos tokens that the post-processor does not", () => {
    const named = { bos_token: "<bos>", eos_token: { content: "<eos>", __type: "AddedToken" } };
    expect([...load({ ...named, add_bos_token: true }).encode(".")]).toEqual([1, 18]);
    expect([...load({ ...named, add_bos_token: true, add_eos_token: true }).encode("")]).toEqual([1, 2]);
    expect([...load({ ...named, add_bos_token: true }).encode(".", { addSpecialTokens: false })]).toEqual([
      18,
    ]);
    expect([...load({ ...named, add_bos_token: false }).encode(".")]).toEqual([18]);
  });

  it("does not add a bos token twice", () => {
    const golden = goldens["byte level after split"]!;
    const tokenizerConfig = { ...golden.config, add_bos_token: true };
    const tokenizer = loadTokenizer({ tokenizerJson: golden.tokenizer, tokenizerConfig });
    expect([...tokenizer.encode("a")].filter((id) => id === tokenizer.bosId)).toHaveLength(1);
  });

  it("adds tokens of added_tokens_decoder and of the named ones", () => {
    const tokenizer = load({
      added_tokens_decoder: {
        "700": { content: "<think>", special: false },
        "4": { content: "<|Assistant|>", special: false },
      },
      additional_special_tokens: ["!"],
    });
    expect(tokenizer.vocabSize).toBe(701);
    expect([...tokenizer.encode("<think>!")]).toEqual([700, 5]);
    expect(tokenizer.specialIds).toEqual(new Set([0, 1, 2, 3, 5]));
    expect(tokenizer.decode([700, 4, 5, 699])).toBe("<think><|Assistant|>");
  });

  it("leaves spaces as they are, whatever clean_up_tokenization_spaces says", () => {
    for (const clean_up_tokenization_spaces of [true, false, undefined]) {
      const tokenizer = load({ clean_up_tokenization_spaces });
      expect(tokenizer.decode(tokenizer.encode("a .b , don 't"))).toBe("a .b , don 't");
    }
  });

  it("takes the chat template from the argument before the config's", () => {
    const tokenizerConfig = { chat_template: "config", bos_token: "<bos>" };
    expect(load(tokenizerConfig).chat?.templates.get("default")).toBe("config");
    expect(load(tokenizerConfig).chat?.specialTokens).toEqual({ bos_token: "<bos>" });
    const given = loadTokenizer({ tokenizerJson, tokenizerConfig, chatTemplate: "given" });
    expect(given.chat?.templates.get("default")).toBe("given");
    expect(small.chat).toBeUndefined();
  });
});

describe("odd input", () => {
  it.each([
    ["\ud800", "\ufffd"],
    ["a\udc00b", "a\ufffdb"],
    ["\udc00\ud800", "\ufffd\ufffd"],
    ["🚀\ud83d", "🚀\ufffd"],
  ])("takes half surrogate pairs for U+FFFD in %j", (text, decoded) =>
    expect(small.decode(small.encode(text))).toBe(decoded),
  );

  it("encodes the empty text to nothing and decodes nothing to it", () => {
    expect(small.encode("")).toEqual(new Int32Array(0));
    expect(small.decode([])).toBe("");
  });

  it("round-trips a text of 1 MiB", () => {
    const text = "To be, or not to be: 東京 🚀\n".repeat(40_000).slice(0, 1 << 20);
    expect(small.decode(small.encode(text))).toBe(text);
  });

  it("says that a text of 1 MiB is too long for a Unigram vocabulary", () => {
    const model = {
      type: "Unigram",
      unk_id: 0,
      vocab: [
        ["<unk>", 0],
        ["▁", -2],
        ["a", -3],
        ["b", -4],
      ],
    };
    const decoder = { type: "Metaspace" };
    const unigram = loadTokenizer({
      tokenizerJson: { model, decoder, pre_tokenizer: { type: "Metaspace" } },
    });
    expect([...unigram.encode("ab b")]).toEqual([1, 2, 3, 1, 3]);
    expect(() => unigram.encode("ab ".repeat(350_000))).toThrow(
      expect.objectContaining({ name: "UserError" }),
    );
  });

  it("rejects ids outside the vocabulary and what is no id or text", () => {
    for (const id of [-1, small.vocabSize, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => small.decode([id])).toThrow(RangeError);
    }
    expect(() => small.decode(["1" as unknown as number])).toThrow(TypeError);
    expect(() => small.encode(undefined as unknown as string)).toThrow(TypeError);
  });
});

describe("malformed tokenizer.json", () => {
  const model = tokenizerJson.model as Record<string, unknown>;
  const cases: [string, unknown, string][] = [
    ["null", null, "not a JSON object"],
    ["an array", [], "not a JSON object"],
    ["no model", {}, "no model"],
    ["no vocabulary", { model: { type: "BPE", merges: [] } }, "no vocabulary"],
    ["an id that is no integer", { model: { ...model, vocab: { a: 0.5 } } }, '"a" has the id 0.5'],
    ["a negative id", { model: { ...model, vocab: { a: -1 } } }, '"a" has the id -1'],
    ["an absurd id", { model: { ...model, vocab: { a: 1e12 } } }, '"a" has the id 1000000000000'],
    [
      "an absurd added id",
      { ...tokenizerJson, added_tokens: [{ id: 2 ** 30, content: "<b>" }] },
      '"<b>" has the id',
    ],
    ["an empty vocabulary", { model: { type: "BPE", vocab: {}, merges: [] } }, "vocabulary is empty"],
    ["no merges", { model: { ...model, merges: undefined } }, "no list of merges"],
    ["malformed merges", { model: { ...model, merges: ["a b", 3] } }, "merges is malformed"],
    ["an unknown model", { model: { type: "Quantum", vocab: undefined } }, "no vocabulary"],
    ["an unknown pre-tokenizer", { ...tokenizerJson, pre_tokenizer: { type: "Mystery" } }, "Mystery"],
    ["an unknown decoder", { ...tokenizerJson, decoder: { type: "CTC" } }, "CTC"],
    ["a decoder that is text", { ...tokenizerJson, decoder: "ByteLevel" }, "not an object"],
    [
      "a post-processor without its template",
      { ...tokenizerJson, post_processor: { type: "TemplateProcessing" } },
      "cannot be used",
    ],
    [
      "a post-processor with an unknown token",
      {
        ...tokenizerJson,
        post_processor: { type: "TemplateProcessing", single: [{ SpecialToken: { id: "<x>" } }] },
      },
      "vocabulary does not have",
    ],
    [
      "an end_of_word_suffix",
      { ...tokenizerJson, model: { ...model, end_of_word_suffix: "</w>" } },
      "suffix",
    ],
    ["Unigram pieces without scores", { model: { type: "Unigram", vocab: [["a"]] } }, "piece 0"],
  ];
  it.each(cases)("says so: %s", (_name, source, part) => {
    const load = () => loadTokenizer({ tokenizerJson: source });
    expect(load).toThrow(expect.objectContaining({ name: "UserError" }));
    expect(load).toThrow(part);
  });

  it("says so for a config that is no object", () => {
    expect(() => loadTokenizer({ tokenizerJson, tokenizerConfig: [] })).toThrow("not a JSON object");
  });
});

describe("fitsVocabulary", () => {
  it("accepts a model with as many rows as ids or more", () => {
    expect(() => fitsVocabulary(small, small.vocabSize)).not.toThrow();
    expect(() => fitsVocabulary(small, small.vocabSize + 64)).not.toThrow();
  });

  it("rejects a model with one row too few", () => {
    const size = small.vocabSize;
    const message = `ids up to ${size - 1} but the model's vocab_size is ${size - 1}`;
    expect(() => fitsVocabulary(small, size - 1)).toThrow(message);
  });
});
