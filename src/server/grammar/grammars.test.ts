import { expect, it } from "vitest";
import { smallTokenizer } from "../../../tests/fixtures/server-fixture.ts";
import { createRandom } from "../../base/random.ts";
import { type Grammar, GrammarError, Grammars } from "./grammars.ts";

const EOS = 2;
const tokenizer = smallTokenizer();
const grammars = new Grammars(tokenizer, [EOS]);

/** A text drawn uniformly from the tokens the grammar allows, to its end or 400 tokens. */
async function draw(grammar: Grammar, seed: number): Promise<{ text: string; ended: boolean }> {
  const random = createRandom(seed);
  const [mask] = await grammars.constraints(grammar, 1);
  const ids: number[] = [];
  for (let step = 0; step < 400; step++) {
    const logits = new Float32Array(tokenizer.vocabSize + 8).fill(0);
    mask!.mask(logits);
    const allowed = [...logits.keys()].filter((id) => logits[id] === 0);
    expect(allowed.length).toBeGreaterThan(0);
    const id = allowed.includes(EOS) ? EOS : allowed[random.integer(allowed.length)]!;
    mask!.accept(id);
    if (id === EOS) break;
    ids.push(id);
  }
  const after = new Float32Array(8).fill(0);
  const text = tokenizer.decode(ids);
  const ended = ids.length < 400;
  if (ended) mask!.mask(after);
  if (ended) expect([...after.keys()].filter((id) => after[id] === 0)).toEqual([EOS]);
  mask!.dispose();
  return { text, ended };
}

it("random texts of a schema are JSON of that schema, special tokens and padding left out", async () => {
  const schema = {
    type: "object",
    properties: {
      kind: { enum: ["sonnet", "play"] },
      lines: { type: "array", items: { type: "integer", minimum: 0, maximum: 99 }, maxItems: 3 },
      title: { type: "string", maxLength: 12 },
      rhymed: { type: ["boolean", "null"] },
    },
    required: ["kind", "lines", "title", "rhymed"],
    additionalProperties: false,
  };
  for (let seed = 0; seed < 20; seed++) {
    const { text, ended } = await draw({ schema }, seed);
    expect(ended).toBe(true);
    const value = JSON.parse(text) as Record<string, unknown>;
    expect(Object.keys(value)).toEqual(schema.required);
    expect(schema.properties.kind.enum).toContain(value.kind);
    expect(value.lines).toSatisfy((lines: number[]) => lines.every((line) => line >= 0 && line <= 99));
    // Bytes of the form of a character, but too large for one, decode to several U+FFFD.
    expect(value.title).toSatisfy((title: string) => [...title.replace(/\uFFFD{1,4}/g, "?")].length <= 12);
    expect([true, false, null]).toContain(value.rhymed);
  }
});

it("json: any object", async () => {
  expect(JSON.parse((await draw("json", 1)).text)).toBeTypeOf("object");
});

it("what cannot be a grammar is refused, and the next one compiles", async () => {
  const deep = Array.from({ length: 100 }).reduce<object>((items) => ({ type: "array", items }), {});
  const long = { enum: ["x".repeat(70_000)] };
  for (const schema of [{ type: "foo" }, { type: "string", pattern: "(" }, deep, long]) {
    await expect(grammars.constraints({ schema }, 1)).rejects.toThrow(GrammarError);
  }
  await expect(grammars.constraints({ schema: { type: "foo" } }, 1)).rejects.toThrow(
    'Unsupported type "foo"',
  );
  expect((await draw({ schema: { const: 7 } }, 1)).text).toBe("7");
});

it("80 schemas at once, more than are kept and some of them bad: each gets its own", async () => {
  const texts = await Promise.allSettled(
    Array.from({ length: 80 }, async (_, i) => {
      return (await draw({ schema: i % 9 === 4 ? { type: "foo" } : { const: i } }, i)).text;
    }),
  );
  texts.forEach((outcome, i) => {
    if (i % 9 === 4) expect(outcome).toMatchObject({ status: "rejected", reason: expect.any(GrammarError) });
    else expect(outcome).toEqual({ status: "fulfilled", value: String(i) });
  });
});

it("a model without an end has no grammars", async () => {
  await expect(new Grammars(tokenizer, []).constraints("json", 1)).rejects.toThrow(/end-of-sequence/);
});

it("a token the grammar does not allow is refused", async () => {
  const [mask] = await grammars.constraints({ schema: { const: 7 } }, 1);
  expect(() => mask!.accept(tokenizer.encode("8")[0]!)).toThrow(RangeError);
  mask!.dispose();
});
