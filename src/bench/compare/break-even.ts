import type { CompareRow, CompareScope } from "./rows.ts";
import type { CompareFormId } from "./shapes.ts";

/** From which context on one form is faster than another. */
export interface BreakEven {
  readonly scope: CompareScope;
  readonly batch: number;
  readonly form: CompareFormId;
  readonly against: CompareFormId;
  readonly finding:
    | { readonly kind: "from"; readonly context: number }
    | { readonly kind: "always" | "never"; readonly from: number; readonly to: number }
    | { readonly kind: "unknown" };
}

/** Measured times of one form at one batch by context, ascending. */
export function measuredTimes(
  rows: readonly CompareRow[],
  scope: CompareScope,
  form: CompareFormId,
  batch: number,
): { context: number; milliseconds: number }[] {
  return rows
    .flatMap((row) =>
      row.scope === scope && row.form === form && row.batch === batch && row.outcome.status === "measured"
        ? [{ context: row.context, milliseconds: row.outcome.milliseconds }]
        : [],
    )
    .sort((a, b) => a.context - b.context);
}

/**
 * The context from which on `form` stays faster than `against`, by straight lines between measured neighbours and never beyond
 * them.
 */
export function breakEven(
  rows: readonly CompareRow[],
  scope: CompareScope,
  batch: number,
  form: CompareFormId,
  against: CompareFormId,
): BreakEven {
  const others = new Map(
    measuredTimes(rows, scope, against, batch).map(({ context, milliseconds }) => [context, milliseconds]),
  );
  const gains = measuredTimes(rows, scope, form, batch).flatMap(({ context, milliseconds }) => {
    const other = others.get(context);
    return other === undefined ? [] : [{ context, gain: other - milliseconds }];
  });
  const about = { scope, batch, form, against };
  const [first, last] = [gains[0], gains.at(-1)];
  if (first === undefined || last === undefined) return { ...about, finding: { kind: "unknown" } };
  const range = { from: first.context, to: last.context };
  if (last.gain <= 0) return { ...about, finding: { kind: "never", ...range } };
  const loss = gains.findLastIndex(({ gain }) => gain <= 0);
  if (loss < 0) return { ...about, finding: { kind: "always", ...range } };
  const [a, b] = [gains[loss]!, gains[loss + 1]!];
  const context = a.context + ((b.context - a.context) * -a.gain) / (b.gain - a.gain);
  return { ...about, finding: { kind: "from", context: Math.round(context) } };
}

/** The lines of a report: both latent forms and fp8 against flash over full heads, and flash against standard. */
export function breakEvens(rows: readonly CompareRow[]): BreakEven[] {
  const pairs: readonly (readonly [CompareFormId, CompareFormId])[] = [
    ["flash", "standard"],
    ["latent-512", "flash"],
    ["latent-256", "flash"],
    ["latent-512-fp8", "latent-512"],
  ];
  const groups = new Map(rows.map(({ scope, batch }) => [`${scope} ${batch}`, { scope, batch }]));
  return [...groups.values()]
    .sort((a, b) => a.scope.localeCompare(b.scope) || a.batch - b.batch)
    .flatMap(({ scope, batch }) =>
      pairs.map(([form, against]) => breakEven(rows, scope, batch, form, against)),
    );
}

/** A finding in words. */
export function describeBreakEven({ finding }: BreakEven): string {
  if (finding.kind === "unknown") return "not measured at a common context";
  if (finding.kind === "from") return `from about ${finding.context} tokens on`;
  return `${finding.kind}, ${finding.from} to ${finding.to} tokens`;
}
