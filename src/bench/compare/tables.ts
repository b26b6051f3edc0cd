import { threeDigits } from "../report.ts";
import { breakEvens, describeBreakEven } from "./break-even.ts";
import { claimArithmetic, claimVerdicts, publishedClaims } from "./claims.ts";
import type { CompareRow, CompareScope } from "./rows.ts";
import { type CompareFormId, compareForms } from "./shapes.ts";
import { medianShares, type TuningShare } from "./tuning.ts";

/** What people read for a scope. */
export const scopeTitles: Readonly<Record<CompareScope, string>> = {
  attention: "attention alone, one layer",
  model: "whole model",
};

/** The title of a form. */
export function titleOf(id: CompareFormId): string {
  return compareForms.find((form) => form.id === id)?.title ?? id;
}

/** Bytes in three digits of megabytes or gigabytes, 10^6 and 10^9. */
export function formatDecimalBytes(bytes: number): string {
  return bytes < 1e9 ? `${threeDigits(bytes / 1e6)} MB` : `${threeDigits(bytes / 1e9)} GB`;
}

/** The rows of one scope as a table, the head first: measured ones with their figures, the others with the reason. */
export function rowsTable(rows: readonly CompareRow[], scope: CompareScope): string[][] {
  const head = ["context", "batch", "form", "ms per token", "tokens/s", "peak memory", "cache"];
  const body = rows
    .filter((row) => row.scope === scope)
    .sort((a, b) => a.context - b.context || a.batch - b.batch)
    .map(({ context, batch, form, cacheBytes, outcome }) => {
      const figures =
        outcome.status === "measured"
          ? [
              shortTime(outcome.milliseconds),
              threeDigits(outcome.tokensPerSecond),
              formatDecimalBytes(outcome.peakBytes),
            ]
          : [`not measured, ${outcome.status}`, "", ""];
      return [String(context), String(batch), titleOf(form), ...figures, formatDecimalBytes(cacheBytes)];
    });
  return [head, ...body];
}

/** Milliseconds of every form side by side, a row for each context and batch; "–" where a row was not measured. */
export function timesTable(rows: readonly CompareRow[], scope: CompareScope): string[][] {
  const own = rows.filter((row) => row.scope === scope);
  const forms = compareForms.filter(({ id }) => own.some(({ form }) => form === id));
  const cells = new Map(own.map(({ context, batch }) => [`${context} ${batch}`, { context, batch }]));
  const body = [...cells.values()]
    .sort((a, b) => a.context - b.context || a.batch - b.batch)
    .map(({ context, batch }) => [
      ...[String(context), String(batch)],
      ...forms.map(({ id }) => {
        const row = own.find((one) => one.form === id && one.context === context && one.batch === batch);
        return row?.outcome.status === "measured" ? shortTime(row.outcome.milliseconds) : "–";
      }),
    ]);
  return [["context", "batch", ...forms.map(({ title }) => title)], ...body];
}

/** Three digits of milliseconds, however short. */
const shortTime = (milliseconds: number): string =>
  milliseconds < 1 ? milliseconds.toPrecision(3) : threeDigits(milliseconds);

/** Why rows were not measured: a sentence for each. */
export function missingSentences(rows: readonly CompareRow[]): string[] {
  return rows.flatMap(({ scope, context, batch, form, outcome }) =>
    outcome.status === "measured"
      ? []
      : [`${scopeTitles[scope]}, ${titleOf(form)}, context ${context}, batch ${batch}: ${outcome.reason}.`],
  );
}

const percent = (share: number) => `${(100 * share).toFixed(0)} %`;

/** How near each form's attention kernels come to the ceiling that binds them, the head first. */
export function tuningTable(shares: readonly TuningShare[]): string[][] {
  const head = ["attention kernels of", "bound by", "of that ceiling: median", "lowest", "highest", "rows"];
  const medians = medianShares(shares);
  const body = compareForms.flatMap(({ id }) => {
    const own = shares.filter(({ form }) => form === id);
    if (own.length === 0) return [];
    const [bounds, values] = [new Set(own.map(({ bound }) => bound)), own.map(({ share }) => share)];
    const common = medians.get(id);
    const middle = common === undefined ? "no common row" : percent(common);
    const ends = [percent(Math.min(...values)), percent(Math.max(...values))];
    return [[titleOf(id), [...bounds].join(", "), middle, ...ends, String(own.length)]];
  });
  return [head, ...body];
}

/** Flash attention's share of latent attention's own from which on its kernel counts as tuned as well. */
const FAIR = 0.8;

function sentenceOnTuning(shares: readonly TuningShare[]): string[] {
  const medians = medianShares(shares);
  const [flash, latent] = [medians.get("flash"), medians.get("latent-512")];
  if (flash === undefined || latent === undefined) return [];
  const isFair = flash >= FAIR * latent;
  return [
    `Of the ceiling that binds it, flash attention's kernel reaches ${percent(flash)} and latent attention's (512) ${percent(latent)} (medians over the ` +
      `cells that every form fits): the comparison ${isFair ? "does not favour" : "favours"} latent attention.`,
  ];
}

/** The break-even lines as a table, the head first. */
export function breakEvenTable(rows: readonly CompareRow[]): string[][] {
  const body = breakEvens(rows).map((one) => [
    scopeTitles[one.scope],
    String(one.batch),
    `${titleOf(one.form)} faster than ${titleOf(one.against)}`,
    describeBreakEven(one),
  ]);
  return [["scope", "batch", "line", "where"], ...body];
}

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

/** What was found, a sentence each. */
export function findings(rows: readonly CompareRow[], shares: readonly TuningShare[]): string[] {
  const measured = rows.filter(({ outcome }) => outcome.status === "measured").length;
  const sentences = [`${measured} of ${rows.length} rows were measured; the others say why not.`];
  const own = ownFigures(rows);
  const ms = own?.rows.map(({ outcome }) => (outcome.status === "measured" ? outcome.milliseconds : 0));
  if (own !== null && ms !== undefined) {
    const [standard, flash, wide, narrow] = ms as [number, number, number, number];
    sentences.push(
      `Whole model, one sequence of ${own.context} tokens: ${ms.map(threeDigits).join(" / ")} ms per token for standard, flash, ` +
        `latent 512 and latent 256; latent 512 takes ${(wide / flash).toFixed(2)} of flash's time and ` +
        `${(wide / standard).toFixed(2)} of standard's, latent 256 ${(narrow / flash).toFixed(2)} of flash's.`,
    );
    const [full, , latent] = own.rows;
    const share = ((100 * latent!.cacheBytes) / full!.cacheBytes).toFixed(1);
    sentences.push(
      `The latent cache of d_c=512 takes ${share} % of the bytes of all heads' keys and values.`,
    );
  }
  return [...sentences, ...sentenceOnTuning(shares)];
}
