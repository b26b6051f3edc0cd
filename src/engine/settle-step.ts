import type { PagedLatentCache } from "../cache/paged-latent-cache.ts";
import type { DecodeWork, SequenceTokens, StepDraws, StepPlan } from "./step-plan.ts";

/** What a step came to. */
export interface SettledStep {
  /** Decodes first. */
  readonly added: readonly SequenceTokens[];
  /** Works that had guesses. */
  readonly drafts: number;
  /** Guesses that were checked, and those that were right. */
  readonly drafted: number;
  readonly accepted: number;
}

/**
 * Compares what was drawn with what was guessed: the tokens up to the first wrong guess, and the one drawn in its place,
 * are what the sequence would have got one by one. Guesses after it leave the cache.
 */
export function settleStep(plan: StepPlan, draws: StepDraws, cache: PagedLatentCache): SettledStep {
  const decoded = plan.decodes.map((work, i) => {
    const tokenIds = keepRight(work, draws.decodes[i]!);
    const dropped = draws.decodes[i]!.length - tokenIds.length;
    if (dropped > 0) cache.truncate(work.sequence.cached!, work.sequence.computed - dropped);
    return { sequence: work.sequence, tokenIds };
  });
  const prefilled = plan.prefills.map(({ sequence }, i) => {
    const drawn = draws.prefills[i]!;
    return { sequence, tokenIds: drawn === null ? [] : [drawn] };
  });
  return {
    added: [...decoded, ...prefilled].filter(({ tokenIds }) => tokenIds.length > 0),
    drafts: plan.decodes.filter(({ drafts }) => drafts > 0).length,
    drafted: plan.decodes.reduce((sum, { drafts }) => sum + drafts, 0),
    accepted: decoded.reduce((sum, { tokenIds }) => sum + Math.max(0, tokenIds.length - 1), 0),
  };
}

function keepRight({ tokenIds, drafts }: DecodeWork, drawn: readonly number[]): readonly number[] {
  const firstGuess = tokenIds.length - drafts;
  let right = 0;
  while (right < drafts && drawn[right] === tokenIds[firstGuess + right]) right++;
  return drawn.slice(0, right + 1);
}
