import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { errorMessage, UserError } from "../base/errors.ts";
import { unusable } from "./tokenizer-json.ts";

/** Text to ids; `addSpecialTokens` runs the special tokens of tokenizer.json's post-processor too. */
export type Encoder = (text: string, addSpecialTokens: boolean) => number[];

/** What is used of @huggingface/tokenizers; its own types do not resolve in Node's module resolution. */
interface LibraryTokenizer {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: (number | undefined)[] };
}

/**
 * The encoder of a checked tokenizer.json. Throws UserError when the library cannot use it. The encoder throws
 * UserError for a text it cannot hold: the library spreads the tokens of a Unigram section over the stack, which
 * overflows above roughly 120,000 of them.
 */
export function createEncoder(
  json: Readonly<Record<string, unknown>>,
  config: Readonly<Record<string, unknown>>,
): Encoder {
  const library = construct(json, config);
  return (text, addSpecialTokens) => {
    try {
      return encode(library, text, addSpecialTokens);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new UserError(
        `The text of ${text.length} characters is too long for this tokenizer in one piece; shorten it.`,
        { cause: error },
      );
    }
  };
}

function construct(json: object, config: object): LibraryTokenizer {
  try {
    const library: LibraryTokenizer = new HuggingFaceTokenizer(json, config);
    encode(library, "", true);
    return library;
  } catch (error) {
    throw error instanceof UserError ? error : unusable(errorMessage(error), error);
  }
}

function encode(library: LibraryTokenizer, text: string, addSpecialTokens: boolean): number[] {
  const { ids } = library.encode(text, { add_special_tokens: addSpecialTokens });
  if (ids.every((id) => id !== undefined)) return ids;
  throw unusable("it produces tokens that its vocabulary does not have");
}
