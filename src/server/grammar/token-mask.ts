import type { GrammarMatcher } from "@mlc-ai/web-xgrammar";
import type { TokenConstraint } from "../../engine/request.ts";

/** A std::vector<int32_t> of the library. */
interface IntVector {
  size(): number;
  get(index: number): number;
  delete(): void;
}

interface MatcherHandle {
  GetNextTokenBitmask(vocabSize: number): IntVector;
}

function isHandle(value: unknown): value is MatcherHandle {
  return typeof value === "object" && value !== null && "GetNextTokenBitmask" in value;
}

/**
 * The library's own method for the mask is async, though nothing in it waits once the library is loaded; a constraint
 * has to answer within the step, so the handle below it is asked.
 */
function handleOf(matcher: GrammarMatcher): MatcherHandle {
  const handle: unknown = Reflect.get(matcher, "handle");
  if (isHandle(handle)) return handle;
  throw new TypeError("this version of the grammar library has another matcher");
}

/** Keeps one sequence to a grammar; when the grammar is complete, only an end-of-sequence token may come. */
export class TokenMask implements TokenConstraint {
  readonly #matcher: GrammarMatcher;
  readonly #handle: MatcherHandle;
  readonly #vocabSize: number;
  readonly #eosTokenIds: ReadonlySet<number>;

  constructor(matcher: GrammarMatcher, vocabSize: number, eosTokenIds: readonly number[]) {
    this.#matcher = matcher;
    this.#handle = handleOf(matcher);
    this.#vocabSize = vocabSize;
    this.#eosTokenIds = new Set(eosTokenIds);
  }

  mask(logits: Float32Array): void {
    if (this.#matcher.isTerminated()) {
      for (let id = 0; id < logits.length; id++) {
        if (!this.#eosTokenIds.has(id)) logits[id] = Number.NEGATIVE_INFINITY;
      }
      return;
    }
    const words = this.#handle.GetNextTokenBitmask(this.#vocabSize);
    const count = words.size();
    for (let word = 0; word * 32 < logits.length; word++) {
      const bits = word < count ? words.get(word) : 0;
      const end = Math.min(32, logits.length - word * 32);
      for (let bit = 0; bit < end; bit++) {
        if (((bits >>> bit) & 1) === 0) logits[word * 32 + bit] = Number.NEGATIVE_INFINITY;
      }
    }
    words.delete();
  }

  accept(tokenId: number): void {
    if (this.#matcher.isTerminated()) return;
    if (!this.#matcher.acceptToken(tokenId)) {
      throw new RangeError(`token ${tokenId} is not what the grammar allows`);
    }
  }

  /** Gives the matcher's memory back. */
  dispose(): void {
    this.#matcher.dispose();
  }
}
