import { readFileSync } from "node:fs";

/** One text through Hugging Face's tokenizers. */
export interface GoldenCase {
  readonly text: string;
  readonly ids: number[];
  readonly idsWithSpecial: number[];
  readonly shown: string;
  readonly skipped: string;
}

/** A tokenizer written by make-golden.py with what Hugging Face's tokenizers made of texts and of random ids. */
export interface Golden {
  readonly tokenizer: Record<string, unknown>;
  readonly config: Record<string, unknown>;
  readonly cases: GoldenCase[];
  readonly random: { readonly ids: number[]; readonly shown: string }[];
}

/** Parses a JSON file of this folder. */
export function readGolden<Content = Golden>(name: string): Content {
  return JSON.parse(readFileSync(new URL(name, import.meta.url), "utf8")) as Content;
}

/** The small byte-level tokenizer with its five golden texts. */
export const byteLevel = {
  tokenizer: readGolden<Record<string, unknown>>("tokenizer.json"),
  cases: readGolden<{ text: string; ids: number[]; decoded: string }[]>("tokenizer-golden.json"),
};

/** The golden tokenizers by the kind of their decoder. */
export const goldens: Readonly<Record<string, Golden>> = {
  "byte fallback": readGolden("byte-fallback-golden.json"),
  metaspace: readGolden("metaspace-golden.json"),
  "byte level after split": readGolden("byte-level-split-golden.json"),
};
