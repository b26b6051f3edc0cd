import { describeValue } from "../base/checks.ts";
import { UserError } from "../base/errors.ts";
import { namedSpecialTokens } from "./added-tokens.ts";
import { type ChatTemplate, readChatTemplate } from "./chat-template.ts";
import { compileDecoder } from "./decoder.ts";
import type { DecoderStep } from "./decoder-step.ts";
import { IncrementalDetokenizer, type TokenEntry } from "./incremental-detokenizer.ts";
import { isRecord } from "./json.ts";
import { createEncoder, type Encoder } from "./library-encoder.ts";
import { checkTokenizerJson, type TokenizerJson } from "./tokenizer-json.ts";

/** Text to token ids and back, for one model. */
export interface Tokenizer {
  /** One more than the highest id, added tokens included; ids in between may be unused. */
  readonly vocabSize: number;
  readonly bosId: number | undefined;
  readonly eosId: number | undefined;
  readonly padId: number | undefined;
  readonly unkId: number | undefined;
  /** All ids that `skipSpecialTokens` leaves out. */
  readonly specialIds: ReadonlySet<number>;
  /** For `renderChat`; undefined when the model has none. */
  readonly chat: ChatTemplate | undefined;
  /**
   * The ids of `text`; special tokens written in it are recognised. `addSpecialTokens` (true when not given) adds what
   * the model expects around a plain prompt, most often a bos token; give false for the text of `renderChat`. Half a
   * surrogate pair counts as U+FFFD. Throws TypeError when `text` is not a string, UserError when it is too long for a
   * Unigram vocabulary (above roughly 120,000 tokens).
   */
  encode(text: string, options?: EncodeOptions): Int32Array;
  /**
   * The text of `ids`, U+FFFD where their bytes are not UTF-8. Spaces are left as they are, whatever
   * `clean_up_tokenization_spaces` says, as transformers 5 does for BPE. Throws TypeError or RangeError for an id that is not an
   * integer from 0 to `vocabSize` - 1; an unused id adds nothing.
   */
  decode(ids: Iterable<number>, options?: DecodeOptions): string;
  /** The id of a token as the vocabulary spells it, or undefined. */
  idOf(token: string): number | undefined;
  /** The token of an id as the vocabulary spells it, or undefined. */
  tokenOf(id: number): string | undefined;
  /** A new stream from ids to text whose pieces joined are `decode` of all its ids. */
  stream(options?: DecodeOptions): IncrementalDetokenizer;
}

/** Options of {@link Tokenizer.encode}. */
export interface EncodeOptions {
  readonly addSpecialTokens?: boolean;
}

/** Options of {@link Tokenizer.decode} and {@link Tokenizer.stream}. */
export interface DecodeOptions {
  /** Whether special tokens add nothing to the text; true when not given. */
  readonly skipSpecialTokens?: boolean;
}

/** The parsed files a tokenizer is made of. */
export interface TokenizerSource {
  /** tokenizer.json. */
  readonly tokenizerJson: unknown;
  /** tokenizer_config.json: names the special tokens and may hold the chat template. */
  readonly tokenizerConfig?: unknown;
  /** Takes the place of the config's: a Jinja text, a list of `{name, template}`, or a record of texts by name. */
  readonly chatTemplate?: unknown;
}

/**
 * Makes a tokenizer of parsed JSON, with no access to files. Throws UserError, one sentence, when the JSON is not a
 * tokenizer that can be used.
 */
export function loadTokenizer({
  tokenizerJson,
  tokenizerConfig = {},
  chatTemplate,
}: TokenizerSource): Tokenizer {
  if (!isRecord(tokenizerConfig)) {
    throw new UserError("tokenizer_config.json is not a JSON object; download the model again.");
  }
  const checked = checkTokenizerJson(tokenizerJson, tokenizerConfig);
  const named = namedSpecialTokens(tokenizerConfig);
  const chat = readChatTemplate(chatTemplate ?? tokenizerConfig.chat_template, named);
  return new HubTokenizer(checked, tokenizerConfig, named, chat);
}

/**
 * Throws UserError unless every id of `tokenizer` is below `vocabSize`, the rows of the model's embedding. Models often
 * have more rows than tokens; ids from `tokenizer.vocabSize` on cannot be decoded and should not be sampled.
 */
export function fitsVocabulary(tokenizer: Pick<Tokenizer, "vocabSize">, vocabSize: number): void {
  if (tokenizer.vocabSize <= vocabSize) return;
  throw new UserError(
    `The tokenizer has ids up to ${tokenizer.vocabSize - 1} but the model's vocab_size is ${vocabSize}: they do not belong together, so take both from the same model.`,
  );
}

class HubTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly bosId: number | undefined;
  readonly eosId: number | undefined;
  readonly padId: number | undefined;
  readonly unkId: number | undefined;
  readonly specialIds: ReadonlySet<number>;
  readonly chat: ChatTemplate | undefined;
  readonly #encode: Encoder;
  readonly #ids: ReadonlyMap<string, number>;
  readonly #entries: readonly (TokenEntry | undefined)[];
  readonly #createDecoder: () => DecoderStep;
  readonly #prefix: readonly number[];
  readonly #suffix: readonly number[];

  constructor(
    { json, decoder, addedTokens, ids }: TokenizerJson,
    config: Readonly<Record<string, unknown>>,
    named: Readonly<Record<string, string>>,
    chat: ChatTemplate | undefined,
  ) {
    this.#encode = createEncoder(json, config);
    this.#ids = ids;
    this.#entries = entriesOf(ids, addedTokens);
    this.vocabSize = this.#entries.length;
    this.specialIds = new Set(addedTokens.filter(({ special }) => special).map(({ id }) => id));
    const idOf = (name: string) => (named[name] === undefined ? undefined : this.idOf(named[name]));
    this.bosId = idOf("bos_token");
    this.eosId = idOf("eos_token");
    this.padId = idOf("pad_token");
    this.unkId = idOf("unk_token");
    this.chat = chat;
    this.#createDecoder = compileDecoder(decoder);
    const frame = this.#encode("", true);
    this.#prefix = missingToken(config.add_bos_token, this.bosId, frame.at(0));
    this.#suffix = missingToken(config.add_eos_token, this.eosId, frame.at(-1));
  }

  encode(text: string, { addSpecialTokens = true }: EncodeOptions = {}): Int32Array {
    if (typeof text !== "string") throw new TypeError(`text must be a string, got ${describeValue(text)}`);
    const wellFormed = text.replace(/\p{Surrogate}/gu, "\uFFFD");
    const ids = this.#encode(wellFormed, addSpecialTokens);
    return new Int32Array(addSpecialTokens ? [...this.#prefix, ...ids, ...this.#suffix] : ids);
  }

  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    const stream = this.stream(options);
    const pieces: string[] = [];
    for (const id of ids) pieces.push(stream.push(id));
    pieces.push(stream.flush());
    return pieces.join("");
  }

  idOf(token: string): number | undefined {
    return this.#ids.get(token);
  }

  tokenOf(id: number): string | undefined {
    return this.#entries[id]?.token;
  }

  stream({ skipSpecialTokens = true }: DecodeOptions = {}): IncrementalDetokenizer {
    return new IncrementalDetokenizer({
      vocabSize: this.vocabSize,
      entryOf: (id) => this.#entries[id],
      decoder: this.#createDecoder(),
      skipSpecialTokens,
    });
  }
}

function entriesOf(
  ids: TokenizerJson["ids"],
  addedTokens: TokenizerJson["addedTokens"],
): (TokenEntry | undefined)[] {
  const size = [...ids.values()].reduce((highest, id) => Math.max(highest, id), -1) + 1;
  const entries = new Array<TokenEntry | undefined>(size).fill(undefined);
  for (const [token, id] of ids) entries[id] = { token, kind: "regular" };
  for (const { id, content, special } of addedTokens) {
    entries[id] = { token: content, kind: special ? "special" : "added" };
  }
  return entries;
}

/**
 * `add_bos_token` and `add_eos_token` of a tokenizer_config.json: the token to add where tokenizer.json's own
 * post-processor does not, as transformers 4 did for Llama's tokenizer class; version 5 leaves them out.
 */
function missingToken(wanted: unknown, id: number | undefined, present: number | undefined): number[] {
  return wanted === true && id !== undefined && present !== id ? [id] : [];
}
