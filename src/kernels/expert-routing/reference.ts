import type { RouterConfig } from "../../formats/config-types.ts";

function ranked(scores: readonly number[]): number[] {
  return scores.map((_, index) => index).sort((a, b) => scores[b]! - scores[a]! || a - b);
}

/**
 * Float64 routing of one token's `logits` [experts]: ids [perToken], best first, and their weights. Softmax or sigmoid
 * scores; `bias` counts for choosing alone; groups rank by their best member, or the sum of their best two
 * (arXiv 2405.04434 §2.1.2, arXiv 2412.19437 §2.1.2).
 */
export function expertRoutingReference(
  router: RouterConfig,
  perToken: number,
  logits: readonly number[],
  bias: readonly number[] | null,
): { ids: number[]; weights: number[] } {
  const largest = Math.max(...logits);
  const exponentials = logits.map((logit) => Math.exp(logit - largest));
  const total = exponentials.reduce((a, b) => a + b);
  const scores =
    router.scoring === "softmax"
      ? exponentials.map((value) => value / total)
      : logits.map((logit) => 1 / (1 + Math.exp(-logit)));
  const biased = scores.map((score, expert) => score + (bias?.[expert] ?? 0));
  const size = logits.length / router.groups;
  const groupScores = Array.from({ length: router.groups }, (_, group) => {
    const members = biased.slice(group * size, (group + 1) * size).sort((a, b) => b - a);
    return router.selection === "group-top2" && size > 1 ? members[0]! + members[1]! : members[0]!;
  });
  const keptGroups = router.selection === "greedy" ? router.groups : router.groupsPerToken;
  const kept = new Set(ranked(groupScores).slice(0, keptGroups));
  const allowed = ranked(biased).filter((expert) => kept.has(Math.floor(expert / size)));
  const ids = allowed.slice(0, perToken);
  const sum = ids.reduce((partial, id) => partial + scores[id]!, 0);
  const divisor = router.normalise ? sum + 1e-20 : 1;
  return { ids, weights: ids.map((id) => (scores[id]! / divisor) * router.scale) };
}
