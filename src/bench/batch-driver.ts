import { createRandom } from "../base/random.ts";
import type { LanguageModel } from "../engine/language-model.ts";
import type { DecodeRow } from "../engine/runner-types.ts";

const greedy = { temperature: 0, topK: 0, topP: 1, minP: 0, seed: 0, step: 0 };

/** Sequences that decode together over a cache that is full already; pages of each are spread over the pool. */
export class BatchDriver {
  readonly #model: LanguageModel;
  readonly #pages: readonly (readonly number[])[];
  readonly #tokens: number[];
  #length: number;

  /** `batch` sequences of `cachedTokens` tokens with room for `steps` more. Throws RangeError when the pool is too small. */
  constructor(model: LanguageModel, batch: number, cachedTokens: number, steps: number) {
    const { pageSize, pageCount, vocabSize } = model.runner;
    const each = Math.ceil((cachedTokens + steps) / pageSize);
    if (each * batch > pageCount) {
      throw new RangeError(`${batch} sequences want ${each * batch} pages, the cache has ${pageCount}`);
    }
    const random = createRandom(batch);
    const order = [...random.permutation(pageCount)];
    this.#model = model;
    this.#pages = Array.from({ length: batch }, (_, b) => order.slice(b * each, (b + 1) * each));
    this.#tokens = Array.from({ length: batch }, () => random.integer(vocabSize));
    this.#length = cachedTokens;
  }

  /** Feeds each sequence the token drawn last and draws the next. */
  async decode(): Promise<void> {
    const { pageSize } = this.#model.runner;
    const position = this.#length++;
    const rows = this.#pages.map((pages, b): DecodeRow => {
      const slot = pages[Math.floor(position / pageSize)]! * pageSize + (position % pageSize);
      return { tokenId: this.#tokens[b]!, position, slot, pages, sampling: greedy, continues: true };
    });
    const drawn = await this.#model.runner.decode(rows);
    drawn.forEach((token, b) => {
      this.#tokens[b] = token;
    });
  }
}
