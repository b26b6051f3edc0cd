import type { PageCopy, PagedLatentCache } from "../cache/paged-latent-cache.ts";
import { draftByRepetition } from "./ngram-drafter.ts";
import type { Sequence } from "./sequence.ts";
import type { DecodeWork, PrefillWork, StepPlan } from "./step-plan.ts";

/** Sizes that bound one step. */
export interface StepLimits {
  /** Rows of a decode call. */
  readonly maxDecodeRows: number;
  /** Tokens of a prefill call. */
  readonly maxChunkTokens: number;
  /** Prompt tokens of a step. */
  readonly maxPrefillTokens: number;
  /** Guesses per sequence and step. */
  readonly draftTokens: number;
  readonly prefixReuse: boolean;
}

/**
 * What the sequences of the batch, foremost first, compute in one step: each decoding one gets a row, rows left over go
 * to outputs that are computed again and to guesses; then prompts are prefilled as far as the step's tokens go. Their
 * pages are reserved already; guesses take free ones only.
 */
export function planStep(
  running: readonly Sequence[],
  cache: PagedLatentCache,
  limits: StepLimits,
): StepPlan {
  const decodes = planDecodes(running, cache, limits);
  const copies: PageCopy[] = [];
  const prefills = planPrefills(running, cache, limits, copies);
  return { copies, decodes, prefills };
}

function planDecodes(
  running: readonly Sequence[],
  cache: PagedLatentCache,
  limits: StepLimits,
): DecodeWork[] {
  const decoding = running.filter(({ isPrefilling }) => !isPrefilling);
  let spareRows = limits.maxDecodeRows - decoding.length;
  return decoding.map((sequence) => {
    const position = sequence.computed;
    const rows = Math.min(sequence.pending, 1 + spareRows);
    const draws = rows === sequence.pending;
    spareRows -= rows - 1;
    const guesses = draws ? draft(sequence, cache, Math.min(limits.draftTokens, spareRows)) : [];
    spareRows -= guesses.length;
    const tokenIds = [...sequence.tokens.slice(position, position + rows), ...guesses];
    const slots = new Int32Array(tokenIds.length);
    cache.append(sequence.cached!, tokenIds.length, slots);
    return { sequence, position, tokenIds, drafts: guesses.length, draws, slots };
  });
}

function draft(sequence: Sequence, cache: PagedLatentCache, rows: number): number[] {
  const count = Math.min(rows, sequence.maxLength - sequence.tokens.length - 1);
  if (count < 1 || !sequence.mayDraft) return [];
  const guesses = draftByRepetition(sequence.tokens, count);
  return cache.reserve(sequence.cached!, sequence.pending + guesses.length) ? guesses : [];
}

function planPrefills(
  running: readonly Sequence[],
  cache: PagedLatentCache,
  limits: StepLimits,
  copies: PageCopy[],
): PrefillWork[] {
  const works: PrefillWork[] = [];
  const underWay = new Set<number>();
  let budget = limits.maxPrefillTokens;
  for (const sequence of running) {
    if (budget === 0) break;
    if (!sequence.isPrefilling) continue;
    if (limits.prefixReuse && !takeOver(sequence, cache, underWay, copies)) continue;
    const { promptIds, computed: position } = sequence;
    const count = Math.min(budget, limits.maxChunkTokens, promptIds.length - position);
    const slots = new Int32Array(count);
    cache.append(sequence.cached!, count, slots);
    const tokenIds = promptIds.slice(position, position + count);
    const draws = position + count === promptIds.length && sequence.outputLength === 0;
    works.push({ sequence, position, tokenIds, draws, slots });
    budget -= count;
  }
  return works;
}

/**
 * Takes over what others have computed of the sequence's prompt, all but its last token. False when another sequence
 * computes the same page in this very step: then the page can be taken over in the next one.
 */
function takeOver(
  sequence: Sequence,
  cache: PagedLatentCache,
  underWay: Set<number>,
  copies: PageCopy[],
): boolean {
  const { promptIds } = sequence;
  const cached = sequence.cached!;
  const before = cached.length;
  cache.reusePages(cached, promptIds, promptIds.length - 1);
  const copy = cache.reusePart(cached, promptIds, promptIds.length - 1);
  if (copy !== null) copies.push(copy);
  if (sequence.preemptions === 0) sequence.cachedTokens += cached.length - before;
  if (copy !== null || promptIds.length - cached.length === 1) return true;
  const key = cache.nextPageKey(cached, promptIds);
  if (underWay.has(key)) return false;
  underWay.add(key);
  return true;
}
