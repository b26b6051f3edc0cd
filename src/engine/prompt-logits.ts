import { checkInteger } from "../base/checks.ts";
import { UserError } from "../base/errors.ts";
import { PagedLatentCache } from "../cache/paged-latent-cache.ts";
import type { ModelRunner } from "./model-runner.ts";
import { nextTurn } from "./next-turn.ts";

/** Throws UserError unless `ids` are 1 … `maxTokens` ids of the vocabulary. */
export function checkPrompt(ids: readonly number[], vocabSize: number, maxTokens: number): void {
  if (ids.length === 0) throw new UserError("The prompt is empty; give at least one token.");
  const bad = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
  if (bad !== undefined) {
    throw new UserError(
      `The prompt has the token id ${bad}; this model's ids go from 0 to ${vocabSize - 1}.`,
    );
  }
  if (ids.length <= maxTokens) return;
  throw new UserError(
    `The prompt has ${ids.length} tokens and the context has room for ${maxTokens}; shorten the prompt or raise the context.`,
  );
}

/**
 * The logits, f32 [vocab], of the last `last` positions of `ids`, computed as a prompt is. The runner must serve nobody
 * else meanwhile: its pages are taken from the first on. Throws UserError for ids that do not fit, RangeError for a `last`
 * past their number.
 */
export async function promptLogits(
  runner: ModelRunner,
  ids: readonly number[],
  last: number,
): Promise<Float32Array[]> {
  checkPrompt(ids, runner.vocabSize, runner.maxContext);
  const first = ids.length - checkInteger("last", last, { min: 1, max: ids.length });
  const cache = new PagedLatentCache(runner.pageCount, runner.pageSize);
  const sequence = cache.create();
  const slots = new Int32Array(runner.maxChunkTokens);
  const logits: Float32Array[] = [];
  for (let position = 0; position < ids.length; position += runner.maxChunkTokens) {
    const tokenIds = ids.slice(position, position + runner.maxChunkTokens);
    cache.reserve(sequence, tokenIds.length);
    cache.append(sequence, tokenIds.length, slots);
    const chunk = { tokenIds, position, slots, pages: sequence.pages, sampling: null };
    const rows = [...tokenIds.keys()].filter((row) => position + row >= first);
    logits.push(...(await runner.score(chunk, rows)));
    await nextTurn();
  }
  return logits;
}
