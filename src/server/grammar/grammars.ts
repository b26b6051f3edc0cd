import type { CompiledGrammar, GrammarCompiler, TokenizerInfo } from "@mlc-ai/web-xgrammar";
import { errorMessage } from "../../base/errors.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import { tokenBytes } from "../token-text.ts";
import { TokenMask } from "./token-mask.ts";
import { loadXGrammar, type XGrammarInstance } from "./xgrammar-module.ts";

/** A JSON schema, or any JSON object at all. */
export type Grammar = { readonly schema: unknown } | "json";

/** The schema cannot be made into a grammar. */
export class GrammarError extends Error {
  override readonly name = "GrammarError";
}

interface Compiler {
  readonly instance: XGrammarInstance;
  readonly info: TokenizerInfo;
  readonly compiler: GrammarCompiler;
}

const MAX_SCHEMA_CHARACTERS = 65_536;
const MAX_SCHEMA_DEPTH = 64;
const CACHED_GRAMMARS = 32;
/** One line, with a space after each comma and colon: where any blanks may come, a weak model writes nothing else. */
const ONE_LINE = [false, -1, [", ", ": "]] as const;

function depthOf(value: unknown): number {
  let level: unknown[] = [value];
  for (let depth = 0; ; depth++) {
    level = level.flatMap((one) => (typeof one === "object" && one !== null ? Object.values(one) : []));
    if (level.length === 0 || depth > MAX_SCHEMA_DEPTH) return depth;
  }
}

function spellingOf(tokenizer: Tokenizer): "byte_fallback" | "byte_level" | "raw" {
  if (tokenizer.idOf("<0x0A>") !== undefined) return "byte_fallback";
  return tokenizer.idOf("Ġ") !== undefined ? "byte_level" : "raw";
}

/** Compiles JSON schemas to masks over one tokenizer's vocabulary, and keeps the latest. The library loads at first use. */
export class Grammars {
  readonly #tokenizer: Tokenizer;
  readonly #eosTokenIds: readonly number[];
  readonly #cache = new Map<string, CompiledGrammar>();
  #compiler: Promise<Compiler> | null = null;
  /** One at a time: a grammar must not be evicted, nor its instance given up, before its matchers are made. */
  #last: Promise<void> = Promise.resolve();

  constructor(tokenizer: Tokenizer, eosTokenIds: readonly number[]) {
    this.#tokenizer = tokenizer;
    this.#eosTokenIds = eosTokenIds;
  }

  /**
   * Makes `count` constraints of one grammar; each must be disposed of. Rejects with GrammarError when the schema is
   * too large or none the library can use, or the model has no token that ends its text.
   */
  async constraints(grammar: Grammar, count: number): Promise<TokenMask[]> {
    if (this.#eosTokenIds.length === 0) {
      throw new GrammarError("this model has no end-of-sequence token, which a grammar needs");
    }
    const key = grammar === "json" ? grammar : checkSchema(grammar.schema);
    const made = this.#last.then(() => this.#make(key, count));
    this.#last = made.then(
      () => {},
      () => {},
    );
    return made;
  }

  async #make(key: string, count: number): Promise<TokenMask[]> {
    const compiled = await this.#compile(key);
    const { instance, info } = await this.#load();
    const masks: TokenMask[] = [];
    for (let i = 0; i < count; i++) {
      const matcher = await instance.library.GrammarMatcher.createGrammarMatcher(compiled);
      masks.push(new TokenMask(matcher, info.getVocabSize(), this.#eosTokenIds));
    }
    return masks;
  }

  async #compile(key: string): Promise<CompiledGrammar> {
    const { instance, compiler } = await this.#load();
    const cached = this.#cache.get(key);
    this.#cache.delete(key);
    try {
      const [whitespace, indent, [comma, colon]] = ONE_LINE;
      const schema = key === "json" ? '{"type":"object"}' : key;
      const compiled =
        cached ??
        (await compiler.compileJSONSchema(schema, whitespace, indent, [comma, colon], key !== "json"));
      this.#cache.set(key, compiled);
    } catch (error) {
      this.#forget();
      throw new GrammarError(instance.takeMessage() ?? errorMessage(error), { cause: error });
    }
    if (this.#cache.size > CACHED_GRAMMARS) {
      const [oldest = key] = this.#cache.keys();
      this.#cache.get(oldest)?.dispose();
      this.#cache.delete(oldest);
    }
    return this.#cache.get(key)!;
  }

  /** After an abort the instance is left to the sequences that still use it. */
  #forget(): void {
    this.#compiler = null;
    this.#cache.clear();
  }

  #load(): Promise<Compiler> {
    this.#compiler ??= this.#start(loadXGrammar());
    return this.#compiler;
  }

  async #start(instance: XGrammarInstance): Promise<Compiler> {
    const { library } = instance;
    const { vocabSize } = this.#tokenizer;
    const vocabulary = Array.from({ length: vocabSize }, (_, id) => this.#spelling(id));
    const info = await library.TokenizerInfo.createTokenizerInfo(
      vocabulary,
      spellingOf(this.#tokenizer),
      false,
      vocabSize,
      [...this.#eosTokenIds],
    );
    return { instance, info, compiler: await library.GrammarCompiler.createGrammarCompiler(info, false) };
  }

  /**
   * How the vocabulary writes a token, or "", which takes it out of every text: special tokens are no part of JSON, nor
   * are raw control characters, which the library lets into strings of a bounded length.
   */
  #spelling(id: number): string {
    const isBarred =
      this.#tokenizer.specialIds.has(id) || tokenBytes(this.#tokenizer, id).some((byte) => byte < 32);
    return isBarred ? "" : (this.#tokenizer.tokenOf(id) ?? "");
  }
}

function checkSchema(schema: unknown): string {
  if (depthOf(schema) > MAX_SCHEMA_DEPTH) {
    throw new GrammarError(`the schema is nested more than ${MAX_SCHEMA_DEPTH} deep`);
  }
  const text = JSON.stringify(schema);
  if (text.length <= MAX_SCHEMA_CHARACTERS) return text;
  throw new GrammarError(`the schema has ${text.length} characters, more than ${MAX_SCHEMA_CHARACTERS}`);
}
