import type { RouterConfig } from "../formats/config-types.ts";

/** An expert of a token and the weight of its output. */
export interface Choice {
  readonly expert: number;
  readonly weight: number;
}

function best(scores: readonly number[], count: number): number[] {
  const order = scores.map((_, index) => index).sort((a, b) => scores[b]! - scores[a]! || a - b);
  return order.slice(0, count);
}

function softmax(logits: Float64Array): number[] {
  const max = Math.max(...logits);
  const exponentials = Array.from(logits, (logit) => Math.exp(logit - max));
  const sum = exponentials.reduce((a, b) => a + b);
  return exponentials.map((value) => value / sum);
}

/** The scores of experts outside the best groups become −∞. */
function withinBestGroups(scores: readonly number[], router: RouterConfig): number[] {
  const size = scores.length / router.groups;
  const summed = router.selection === "group-max" ? 1 : 2;
  const groupScores = Array.from({ length: router.groups }, (_, group) => {
    const members = scores.slice(group * size, (group + 1) * size);
    return best(members, summed).reduce((sum, member) => sum + members[member]!, 0);
  });
  const kept = new Set(best(groupScores, router.groupsPerToken));
  return scores.map((score, expert) => (kept.has(Math.floor(expert / size)) ? score : -Infinity));
}

/**
 * The `perToken` experts that one token's `logits` [experts] choose, best first; ties go to the lower index.
 * `correctionBias` [experts] takes part in choosing alone.
 */
export function referenceRouter(
  router: RouterConfig,
  perToken: number,
  logits: Float64Array,
  correctionBias: Float32Array | null,
): Choice[] {
  const scores =
    router.scoring === "softmax"
      ? softmax(logits)
      : Array.from(logits, (logit) => 1 / (1 + Math.exp(-logit)));
  const biased = scores.map((score, expert) => score + (correctionBias?.[expert] ?? 0));
  const chosen = best(router.selection === "greedy" ? biased : withinBestGroups(biased, router), perToken);
  const sum = chosen.reduce((total, expert) => total + scores[expert]!, 0);
  const divisor = router.normalise ? sum + 1e-20 : 1;
  return chosen.map((expert) => ({ expert, weight: (scores[expert]! / divisor) * router.scale }));
}
