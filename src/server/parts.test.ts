import { describe, expect, it } from "vitest";
import { smallTokenizer } from "../../tests/fixtures/server-fixture.ts";
import { eventStream, primed } from "./event-stream.ts";
import { checkAddress, isLoopback } from "./listen.ts";
import { merged } from "./merge-iterators.ts";
import { tokenBytes, tokenText } from "./token-text.ts";

async function* count(to: number, onEnd: () => void = () => {}): AsyncGenerator<number, void> {
  try {
    for (let i = 0; i < to; i++) yield i;
  } finally {
    onEnd();
  }
}

describe("merged", () => {
  it("gives every item of every source, each source in order", async () => {
    const seen: number[][] = [[], [], []];
    const items = merged([count(3), count(0), count(5)], (item, source) => [source, item] as const);
    for await (const [source, item] of items) seen[source]!.push(item);
    expect(seen).toEqual([[0, 1, 2], [], [0, 1, 2, 3, 4]]);
  });

  it("rejects as a source does, and ends all when left", async () => {
    const failing = (async function* (): AsyncGenerator<number, void> {
      yield 1;
      throw new Error("broken");
    })();
    const all = async () => {
      for await (const _ of merged([count(1), failing], (item) => item));
    };
    await expect(all()).rejects.toThrow("broken");
    let ended = 0;
    for await (const _ of merged([count(9, () => ended++), count(9, () => ended++)], (item) => item)) break;
    expect(ended).toBe(2);
  });
});

describe("primed", () => {
  it("replays its first item, and ends the source even when it was never read", async () => {
    const read: number[] = [];
    const iterator = await primed(count(3));
    for (let next = await iterator.next(); !next.done; next = await iterator.next()) read.push(next.value);
    expect(read).toEqual([0, 1, 2]);
    let ended = false;
    const unread = await primed(count(3, () => (ended = true)));
    await unread.return!();
    expect(ended).toBe(true);
  });
});

it("an event stream asks for a chunk only when the last was taken", async () => {
  let asked = 0;
  const chunks: AsyncIterator<number, void> = {
    next: async () => {
      asked++;
      return { done: false, value: asked };
    },
  };
  const reader = eventStream(chunks, { stallMs: 60_000, abort: () => {} }).getReader();
  await new Promise((done) => setImmediate(done));
  expect(asked).toBe(0);
  await reader.read();
  await new Promise((done) => setImmediate(done));
  expect(asked).toBe(1);
  await reader.cancel();
});

it("the bytes of all tokens of a text are the text", () => {
  const tokenizer = smallTokenizer();
  const text = "Grüße 👋, 世界 — “quoted”\n\ttab";
  const ids = [...tokenizer.encode(text, { addSpecialTokens: false })];
  const bytes = ids.flatMap((id) => [...tokenBytes(tokenizer, id)]);
  expect(new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(bytes))).toBe(text);
  expect(tokenText(tokenizer, 2)).toBe("<eos>");
  expect(tokenText({ ...tokenizer, idOf: () => 3, tokenOf: () => "<0xC3>", specialIds: new Set() }, 9)).toBe(
    "\uFFFD",
  );
  const metaspace = { idOf: () => undefined, tokenOf: () => "▁word", specialIds: new Set<number>() };
  expect(tokenText(metaspace, 0)).toBe(" word");
});

it("only loopback needs no key", () => {
  expect(["127.0.0.1", "127.8.8.8", "localhost", "::1"].every(isLoopback)).toBe(true);
  expect(["0.0.0.0", "::", "192.168.1.2", "127.example", "example.org"].some(isLoopback)).toBe(false);
  expect(() => checkAddress("0.0.0.0", false)).toThrow("has no key");
  expect(() => checkAddress("0.0.0.0", true)).not.toThrow();
});
