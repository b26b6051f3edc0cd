import { UserError } from "../base/errors.ts";
import { type AddedToken, mergeAddedTokens } from "./added-tokens.ts";
import { isRecord } from "./json.ts";

/** Ids from here on are taken for a corrupt file: the vocabulary is held as an array up to the highest id. */
const idLimit = 1 << 24;

/** A tokenizer.json that was checked as far as the tokenizers library does not check it. */
export interface TokenizerJson {
  /** What the tokenizers library is given to encode with: the file with `addedTokens`, and with no decoder. */
  readonly json: Record<string, unknown>;
  /** The file's decoder, for `compileDecoder`. */
  readonly decoder: unknown;
  readonly addedTokens: readonly AddedToken[];
  /** The id of every token, added ones included. */
  readonly ids: ReadonlyMap<string, number>;
}

/**
 * Checks a parsed tokenizer.json and merges the added tokens of a tokenizer_config.json into it. Throws UserError,
 * one sentence, when it is not a tokenizer, has an absurd id, or is of a kind that cannot be decoded as a stream.
 */
export function checkTokenizerJson(
  source: unknown,
  config: Readonly<Record<string, unknown>>,
): TokenizerJson {
  if (!isRecord(source)) throw unusable("it is not a JSON object");
  const { model } = source;
  if (!isRecord(model)) throw unusable("it has no model");
  const ids = vocabularyOf(model);
  if (typeof model.end_of_word_suffix === "string" && model.end_of_word_suffix !== "") {
    throw unusable("vocabularies with an end_of_word_suffix are not supported");
  }
  const addedTokens = mergeAddedTokens(source.added_tokens, config, (token) => ids.get(token));
  for (const { id, content } of addedTokens) ids.set(content, checkId(id, content));
  if (ids.size === 0) throw unusable("its vocabulary is empty");
  const absent = { normalizer: null, pre_tokenizer: null, post_processor: null };
  const json = { ...absent, ...source, added_tokens: addedTokens, decoder: null };
  return { json, decoder: source.decoder, addedTokens, ids };
}

/** The error for a tokenizer.json that cannot be used, for the given reason. */
export function unusable(reason: string, cause?: unknown): UserError {
  return new UserError(
    `tokenizer.json cannot be used: ${reason}; download the model again or choose another.`,
    {
      cause,
    },
  );
}

function vocabularyOf(model: Record<string, unknown>): Map<string, number> {
  const { type, vocab, merges } = model;
  if (Array.isArray(vocab)) return pieceLookup(vocab);
  if (!isRecord(vocab)) throw unusable("its model has no vocabulary");
  const ids = new Map<string, number>();
  for (const [token, id] of Object.entries(vocab)) ids.set(token, checkId(id, token));
  if (type === "BPE") checkMerges(merges);
  return ids;
}

/** Unigram: a list of [piece, score]. */
function pieceLookup(vocab: readonly unknown[]): Map<string, number> {
  const ids = new Map<string, number>();
  vocab.forEach((entry, id) => {
    if (!Array.isArray(entry) || typeof entry[0] !== "string" || typeof entry[1] !== "number") {
      throw unusable(`piece ${id} of its vocabulary is not a pair of text and score`);
    }
    ids.set(entry[0], id);
  });
  return ids;
}

function checkMerges(merges: unknown): void {
  if (!Array.isArray(merges)) throw unusable("its model has no list of merges");
  const pairs = Array.isArray(merges[0]);
  for (const merge of merges as unknown[]) {
    const valid = pairs ? Array.isArray(merge) && merge.length === 2 : typeof merge === "string";
    if (!valid) throw unusable("its list of merges is malformed");
  }
}

function checkId(id: unknown, token: string): number {
  if (typeof id === "number" && Number.isInteger(id) && id >= 0 && id < idLimit) return id;
  throw unusable(
    `the token ${JSON.stringify(token)} has the id ${JSON.stringify(id)}, not one from 0 to ${idLimit - 1}`,
  );
}
