import { threeDigits } from "../report.ts";
import { claimArithmetic, claimVerdicts, publishedClaims } from "./claims.ts";
import type { CompareRow } from "./rows.ts";
import { formatDecimalBytes, titleOf } from "./tables.ts";

/** The whole model's rows at batch 1 and the longest context at which all four published forms were measured. */
export function ownFigures(rows: readonly CompareRow[]): { context: number; rows: CompareRow[] } | null {
  const single = rows.filter((row) => row.scope === "model" && row.batch === 1);
  const contexts = [...new Set(single.map(({ context }) => context))].sort((a, b) => b - a);
  for (const context of contexts) {
    const found = publishedClaims.flatMap(({ form }) =>
      single.filter(
        (row) => row.form === form && row.context === context && row.outcome.status === "measured",
      ),
    );
    if (found.length === publishedClaims.length) return { context, rows: found };
  }
  return null;
}

/** The published figures beside arithmetic (computed, not measured), the head first. */
export function claimsTable(): string[][] {
  const head = [
    "published, A100, 7B",
    "ms",
    "floor ms",
    "tokens/s",
    "peak GB",
    "least GB",
    "cache GB",
    "MLA cache GB",
  ];
  const body = publishedClaims.map((claim) => {
    const own = claimArithmetic(claim);
    return [
      claim.title,
      ...[claim.milliseconds.toFixed(1), own.floorMilliseconds.toFixed(1), claim.tokensPerSecond.toFixed(1)],
      ...[claim.peakGigabytes.toFixed(1), own.leastPeakGigabytes.toFixed(1)],
      ...[claim.cacheGigabytes.toFixed(1), own.cacheGigabytes.toFixed(2)],
    ];
  });
  return [head, ...body];
}

/** This machine's figures beside the published ratios to standard attention; the head alone where they are missing. */
export function ownTable(rows: readonly CompareRow[]): string[][] {
  const head = [
    "measured here",
    "ms per token",
    "of standard",
    "published",
    "cache",
    "of standard",
    "published",
  ];
  const own = ownFigures(rows);
  if (own === null) return [head];
  const base = own.rows[0]!;
  const baseMs = base.outcome.status === "measured" ? base.outcome.milliseconds : Number.NaN;
  const body = own.rows.map((row, i) => {
    const claim = publishedClaims[i]!;
    const ms = row.outcome.status === "measured" ? row.outcome.milliseconds : Number.NaN;
    return [
      titleOf(row.form),
      ...[threeDigits(ms), (ms / baseMs).toFixed(2)],
      (claim.milliseconds / publishedClaims[0]!.milliseconds).toFixed(2),
      ...[formatDecimalBytes(row.cacheBytes), (row.cacheBytes / base.cacheBytes).toFixed(2)],
      (claim.cacheGigabytes / publishedClaims[0]!.cacheGigabytes).toFixed(2),
    ];
  });
  return [head, ...body];
}

/** The verdicts on the published figures, the head first. */
export function verdictTable(): string[][] {
  const body = claimVerdicts().map(({ claim, follows, because }) => [claim, follows, because]);
  return [["published", "follows", "because"], ...body];
}
