import { threeDigits } from "../report.ts";
import { breakEvens, describeBreakEven } from "./break-even.ts";
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

/** A share without decimals. */
export const percent = (share: number) => `${(100 * share).toFixed(0)} %`;

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
