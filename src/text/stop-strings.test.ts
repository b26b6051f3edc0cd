import { describe, expect, it } from "vitest";
import { createRandom, type Random } from "../base/random.ts";
import { StopStringMatcher } from "./stop-strings.ts";

function feed(matcher: StopStringMatcher, pieces: readonly string[]) {
  const shown: string[] = [];
  for (const piece of pieces) shown.push(matcher.push(piece).text);
  const { found } = matcher;
  return { shown, text: shown.join("") + matcher.flush(), found };
}

/** The match that ends first, the longest of those that end there, by trying every end. */
function naive(text: string, stops: readonly string[], includeStop: boolean) {
  for (let end = 1; end <= text.length; end++) {
    const ending = stops.filter((stop) => text.slice(0, end).endsWith(stop));
    if (ending.length === 0) continue;
    const found = ending.reduce((a, b) => (b.length > a.length ? b : a));
    return { text: text.slice(0, includeStop ? end : end - found.length), found };
  }
  return { text, found: undefined };
}

function cut(text: string, random: Random): string[] {
  const pieces: string[] = [];
  for (let at = 0; at < text.length; ) {
    const length = random.integer(5);
    pieces.push(text.slice(at, at + length));
    at += length;
  }
  return pieces;
}

describe("StopStringMatcher", () => {
  it.each(["ab", "abc ", "a\n🚀😀"])(
    "agrees with a search of the whole, 4,000 random texts over %j",
    (letters) => {
      const alphabet = [...letters];
      const random = createRandom(letters.length);
      const word = (most: number) =>
        Array.from(
          { length: 1 + random.integer(most) },
          () => alphabet[random.integer(alphabet.length)],
        ).join("");
      for (let run = 0; run < 4000; run++) {
        const stops = Array.from({ length: random.integer(4) }, () => word(5));
        const text = word(24);
        const includeStop = random.uniform() < 0.5;
        const { text: shown, found } = feed(new StopStringMatcher(stops, { includeStop }), cut(text, random));
        expect({ text: shown, found }, JSON.stringify({ stops, text })).toEqual(
          naive(text, stops, includeStop),
        );
      }
    },
  );

  it("holds back only what may become a stop string", () => {
    const { shown, text } = feed(new StopStringMatcher(["###", "\n\nUser:"]), [
      "one #",
      "# two\n",
      "\nUse",
      "d",
      "#",
    ]);
    expect(shown).toEqual(["one ", "## two", "", "\n\nUsed", ""]);
    expect(text).toBe("one ## two\n\nUsed#");
  });

  it("never holds back as much as the longest stop string", () => {
    const random = createRandom(9);
    const matcher = new StopStringMatcher(["aabaab", "abab"]);
    let pushed = 0;
    let shown = 0;
    while (matcher.found === undefined) {
      const piece = "ab"[random.integer(2)]!.repeat(1 + random.integer(2));
      pushed += piece.length;
      const result = matcher.push(piece);
      shown += result.text.length;
      if (result.stop === undefined) expect(pushed - shown).toBeLessThan(6);
    }
  });

  it("finds a stop string across pieces and ignores what follows", () => {
    const matcher = new StopStringMatcher(["<|end|>"]);
    expect(matcher.push("bye<|e")).toEqual({ text: "bye", stop: undefined });
    expect(matcher.push("nd|>more")).toEqual({ text: "", stop: "<|end|>" });
    expect(matcher.push("more")).toEqual({ text: "", stop: "<|end|>" });
    expect([matcher.found, matcher.flush()]).toEqual(["<|end|>", ""]);
  });

  it("leaves the stop string in the text when asked", () => {
    const matcher = new StopStringMatcher(["。"], { includeStop: true });
    expect(matcher.push("東京。大阪")).toEqual({ text: "東京。", stop: "。" });
  });

  it("takes the stop string that ends first, and of two that end together the longest", () => {
    expect(feed(new StopStringMatcher(["abcd", "bc"]), ["abcd"])).toMatchObject({ text: "a", found: "bc" });
    expect(feed(new StopStringMatcher(["ab", "abc"]), ["abc"])).toMatchObject({ text: "", found: "ab" });
    expect(feed(new StopStringMatcher(["c", "bc"]), ["abc"])).toMatchObject({ text: "a", found: "bc" });
  });

  it("passes everything through without stop strings", () => {
    expect(feed(new StopStringMatcher([]), ["a", "", "b"])).toEqual({
      shown: ["a", "", "b"],
      text: "ab",
      found: undefined,
    });
  });

  it("starts afresh after flush", () => {
    const matcher = new StopStringMatcher(["ab"]);
    expect([matcher.push("a").text, matcher.flush(), matcher.push("b").text]).toEqual(["", "a", "b"]);
  });

  it("rejects stop strings that cannot be found", () => {
    expect(() => new StopStringMatcher(["a", ""])).toThrow(new RangeError("stops[1] must not be empty"));
    expect(() => new StopStringMatcher(["\ud83d"])).toThrow(RangeError);
    expect(() => new StopStringMatcher([3 as unknown as string])).toThrow(TypeError);
  });
});
