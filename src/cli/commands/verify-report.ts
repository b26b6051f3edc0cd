import type { Tolerance } from "../../kernels/common/cases/kernel-case.ts";
import type { Summary, SummaryRow } from "../../verify/summary.ts";
import type { VerifyResult } from "../../verify/verify.ts";
import { formatTable, paint, printLine } from "../output.ts";

/** Failures listed in full; the rest are counted. */
const MOST_FAILURES = 20;

const head = [
  "kernel",
  "cases",
  "output",
  "count",
  "rows checked",
  "worst absolute",
  "worst relative",
  "tolerance",
  "",
];

function formatError(value: number): string {
  return value === 0 || Number.isNaN(value) ? String(value) : value.toExponential(1);
}

/** A bound, without digits that say nothing: 8e-4, 1.6e-2. */
function formatBound(value: number): string {
  return value.toExponential(1).replace(".0e", "e");
}

function formatTolerance({ absolute, relative, cosine }: Tolerance): string {
  if (absolute === 0 && relative === 0) return "exact";
  const bounds = [
    absolute > 0 ? `${formatBound(absolute)} absolute` : "",
    relative > 0 ? `${formatBound(relative)} relative` : "",
  ].filter((bound) => bound !== "");
  const values = bounds.join(" or ");
  return cosine === undefined ? values : `${values}, ${formatBound(cosine)} cos`;
}

function lineOf(row: SummaryRow): string[] {
  const { kernel, group, output, cases, rows, checkedRows } = row;
  return [
    ...[kernel, group, output, String(cases)],
    rows === checkedRows ? `all ${rows}` : `${checkedRows} of ${rows}`,
    formatError(row.absolute),
    formatError(row.relative),
    formatTolerance(row.tolerance),
    row.failed === 0 ? "pass" : `${row.failed} FAILED`,
  ];
}

function printDevice(device: string, { rows, impossible }: Summary): void {
  const own = rows.filter((row) => row.device === device);
  printLine(paint.bold(device));
  if (own.length > 0) {
    const lines = formatTable([head, ...own.map(lineOf)]).split("\n");
    lines.forEach((line, i) => {
      if (i === 0) printLine(paint.dim(line));
      else printLine(own[i - 1]!.failed === 0 ? line : paint.red(line));
    });
  }
  for (const { kernel, cases, reason } of impossible.filter((entry) => entry.device === device)) {
    printLine(paint.yellow(`${kernel}: ${cases} case${cases === 1 ? "" : "s"} not run: ${reason}`));
  }
  printLine();
}

/** Prints a table for each device, the failures, and a line that says how it went. */
export function printSummary(
  summary: Summary & Pick<VerifyResult, "absent" | "notBegun"> & { readonly seconds: number },
): void {
  const { devices, absent, notBegun, failures, cases, seconds } = summary;
  for (const device of devices) printDevice(device, summary);
  for (const { kind, reason } of absent) printLine(paint.dim(`${kind} is not here: ${reason}`));
  for (const { device, kernel, group, shape, problem } of failures.slice(0, MOST_FAILURES)) {
    printLine(`${paint.red("failed")}: ${kernel}, ${group}, ${shape}, on ${device}: ${problem}`);
  }
  if (failures.length > MOST_FAILURES) printLine(`… and ${failures.length - MOST_FAILURES} more failures`);
  const sampled = summary.rows.some(({ rows, checkedRows }) => checkedRows < rows);
  if (sampled) {
    printLine(
      "Of large shapes a sample of rows is compared with float64; every row is checked for NaN and infinities.",
    );
  }
  const took = `${cases} runs on ${devices.length} device${devices.length === 1 ? "" : "s"}, ${seconds.toFixed(0)} s`;
  if (notBegun > 0) printLine(paint.yellow(`Stopped by Ctrl-C: ${notBegun} cases were not begun.`));
  if (summary.isPassed)
    printLine(
      `${paint.green(`${notBegun > 0 ? "What was run" : "Every kernel"} agrees with float64`)}: ${took}.`,
    );
  else if (cases === 0) printLine(`${paint.red("Nothing could be run")}: see above.`);
  else printLine(`${paint.red(`${failures.length} failed`)}: ${took}.`);
}
