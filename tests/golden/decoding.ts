import { expect } from "vitest";
import { PagedLatentCache } from "../../src/cache/paged-latent-cache.ts";
import { Engine } from "../../src/engine/engine.ts";
import type { LanguageModel } from "../../src/engine/language-model.ts";

/** The logits that each of `greedyIds` is drawn from, fed the ids given, by the steps that generation runs. */
export async function forcedLogits(
  model: LanguageModel,
  prompt: readonly number[],
  greedyIds: readonly number[],
): Promise<Float32Array[]> {
  const { runner } = model;
  const cache = new PagedLatentCache(runner.pageCount, runner.pageSize);
  const sequence = cache.create();
  const slots = new Int32Array(runner.maxChunkTokens);
  const seen: Float32Array[] = [];
  const adjust = (logits: Float32Array) => seen.push(logits.slice());
  const sampling = { temperature: 0, topK: 0, topP: 1, minP: 0, seed: 0, step: 0 };
  for (let position = 0; position < prompt.length; position += runner.maxChunkTokens) {
    const tokenIds = prompt.slice(position, position + runner.maxChunkTokens);
    cache.reserve(sequence, tokenIds.length);
    cache.append(sequence, tokenIds.length, slots);
    const isLast = position + tokenIds.length === prompt.length;
    const chunk = { tokenIds, position, slots, pages: sequence.pages, sampling: isLast ? sampling : null };
    await runner.prefill(chunk, adjust);
  }
  for (const tokenId of greedyIds.slice(0, -1)) {
    cache.reserve(sequence, 1);
    cache.append(sequence, 1, slots);
    const row = { tokenId, position: sequence.length - 1, slot: slots[0]!, pages: sequence.pages, sampling };
    await runner.decode([row], new Map([[0, adjust]]));
  }
  cache.free(sequence);
  return seen;
}

/** What greedy generation makes of a prompt. */
export async function greedyIds(
  model: LanguageModel,
  prompt: readonly number[],
  maxTokens: number,
): Promise<number[]> {
  const engine = new Engine({ runner: model.runner, tokenizer: null, eosTokenIds: [] });
  const ids: number[] = [];
  for await (const event of engine.generate({ promptIds: prompt, maxTokens, temperature: 0 })) {
    if (event.kind === "tokens") ids.push(...event.tokenIds);
  }
  expect(engine.statistics().usedPages).toBe(0);
  await engine.close();
  return ids;
}
