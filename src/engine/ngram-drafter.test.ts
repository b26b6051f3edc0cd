import { expect, it } from "vitest";
import { draftByRepetition } from "./ngram-drafter.ts";

const ids = (text: string) => [...text].map((letter) => letter.charCodeAt(0));
const draft = (text: string, count: number) => String.fromCharCode(...draftByRepetition(ids(text), count));

it.each([
  ["the longest ending decides, the latest place among equals", "abcX bcY bcZ abc", 1, "X"],
  ["the latest of equal places", "bcY bcZ bc", 1, "Z"],
  ["what followed goes on", "one two three, one t", 6, "wo thr"],
  ["a short period goes round", "xyxy", 5, "xyxyx"],
  ["one token repeated", "aaaa", 3, "aaa"],
  ["a single token is no match", "abca", 3, ""],
  ["nothing repeats", "abcdef", 3, ""],
  ["no guesses wanted", "abab", 0, ""],
  ["one token", "a", 3, ""],
  ["no tokens", "", 3, ""],
])("%s: %j, %i", (_name, text, count, expected) => {
  expect(draft(text, count)).toBe(expected);
});

it("looks no further back than 4096 tokens", () => {
  const filler = Array.from({ length: 4096 }, (_, i) => 1000 + i);
  expect(draftByRepetition([1, 2, 3, ...filler, 1, 2], 1)).toEqual([]);
  expect(draftByRepetition([1, 2, 3, ...filler.slice(8), 1, 2], 1)).toEqual([3]);
});
