import { UserError } from "../base/errors.ts";
import { createRandom } from "../base/random.ts";
import { type CachedSequence, PagedLatentCache } from "../cache/paged-latent-cache.ts";
import type { LanguageModel } from "../engine/language-model.ts";
import { pause } from "./pause.ts";

const greedy = { temperature: 0, topK: 0, topP: 1, minP: 0, seed: 0, step: 0 };

/** One sequence of random tokens, prefilled and decoded step by step as generation does. */
export class SequenceDriver {
  readonly #model: LanguageModel;
  readonly #cache: PagedLatentCache;
  readonly #sequence: CachedSequence;
  readonly #slots: Int32Array;
  readonly #random = createRandom(1);
  readonly #signal: AbortSignal | undefined;
  #token = 0;

  /** Once `signal` is aborted, the next chunk of a prompt rejects with its reason. */
  constructor(model: LanguageModel, signal?: AbortSignal) {
    this.#model = model;
    this.#signal = signal;
    this.#cache = new PagedLatentCache(model.runner.pageCount, model.runner.pageSize);
    this.#sequence = this.#cache.create();
    this.#slots = new Int32Array(model.runner.maxChunkTokens);
  }

  /** Cached tokens. */
  get length(): number {
    return this.#sequence.length;
  }

  /** Drops what follows `length` tokens. */
  truncate(length: number): void {
    this.#cache.truncate(this.#sequence, length);
  }

  #append(tokens: number): void {
    const { maxContext } = this.#model;
    if (this.length + tokens > maxContext || !this.#cache.reserve(this.#sequence, tokens)) {
      throw new UserError(
        `${this.length + tokens} tokens do not fit the model's context of ${maxContext}; ask for less.`,
      );
    }
    this.#cache.append(this.#sequence, tokens, this.#slots);
  }

  /** Adds `tokens` random tokens in chunks and draws one from the last. */
  async prefill(tokens: number): Promise<void> {
    const { runner, config } = this.#model;
    for (let left = tokens; left > 0; left -= runner.maxChunkTokens) {
      await pause(this.#signal);
      const count = Math.min(left, runner.maxChunkTokens);
      const position = this.length;
      this.#append(count);
      const tokenIds = Array.from({ length: count }, () => this.#random.integer(config.vocabSize));
      const { pages } = this.#sequence;
      const sampling = left === count ? greedy : null;
      const drawn = await runner.prefill({ tokenIds, position, slots: this.#slots, pages, sampling });
      this.#token = drawn ?? this.#token;
    }
  }

  /** Feeds the token drawn last and draws the next. */
  async decode(): Promise<void> {
    this.#append(1);
    const position = this.length - 1;
    const { pages } = this.#sequence;
    const row = {
      tokenId: this.#token,
      position,
      slot: this.#slots[0]!,
      pages,
      sampling: greedy,
      continues: true,
    };
    const drawn = await this.#model.runner.decode([row]);
    this.#token = drawn[0]!;
  }
}
