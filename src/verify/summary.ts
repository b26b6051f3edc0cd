import type { Finding, Tolerance } from "../kernels/common/cases/kernel-case.ts";
import type { CaseResult } from "./verify.ts";

/** One output of one group of a kernel's cases on one device: a line of the report. */
export interface SummaryRow {
  readonly device: string;
  readonly kernel: string;
  readonly group: string;
  readonly output: string;
  cases: number;
  failed: number;
  /** Rows that the kernel wrote, and those compared with float64. */
  rows: number;
  checkedRows: number;
  /** The worst errors as `Finding` defines them; NaN when one could not be judged. */
  absolute: number;
  relative: number;
  cosine: number;
  /** Of the case with the worst absolute error: some grow with the width of the sums. */
  tolerance: Tolerance;
}

/** A case that did not pass. */
export interface Failure {
  readonly device: string;
  readonly kernel: string;
  readonly group: string;
  readonly shape: string;
  readonly problem: string;
}

/** Cases that a device could not run. */
export interface Impossible {
  readonly device: string;
  readonly kernel: string;
  readonly reason: string;
  cases: number;
}

/** What a verification found, for a table or as JSON. */
export interface Summary {
  /** At least one case ran, and none failed. */
  readonly isPassed: boolean;
  /** Cases that ran, on all devices together. */
  readonly cases: number;
  readonly devices: readonly string[];
  readonly rows: readonly SummaryRow[];
  readonly failures: readonly Failure[];
  readonly impossible: readonly Impossible[];
}

/** The larger of two errors; NaN, which no tolerance admits, is the largest. */
const worse = (a: number, b: number) => (Number.isNaN(a) || Number.isNaN(b) ? Number.NaN : Math.max(a, b));

function addFinding(row: SummaryRow, finding: Finding): void {
  if (!(finding.absolute <= row.absolute)) row.tolerance = finding.tolerance;
  row.cases++;
  if (finding.problem !== null) row.failed++;
  row.rows += finding.rows;
  row.checkedRows += finding.checkedRows;
  row.absolute = worse(row.absolute, finding.absolute);
  row.relative = worse(row.relative, finding.relative);
  row.cosine = worse(row.cosine, finding.cosine);
}

function addChecked(rows: Map<string, SummaryRow>, result: CaseResult, findings: readonly Finding[]): void {
  const { kernel, group } = result.case;
  for (const finding of findings) {
    const key = [result.device, kernel, group, finding.output].join("\n");
    const fresh = { cases: 0, failed: 0, rows: 0, checkedRows: 0, absolute: 0, relative: 0, cosine: 0 };
    const { output, tolerance } = finding;
    const row = rows.get(key) ?? { device: result.device, kernel, group, output, tolerance, ...fresh };
    rows.set(key, row);
    addFinding(row, finding);
  }
}

/** Groups results by device, kernel, group and output, in the order in which they came. */
export function summarise(results: readonly CaseResult[]): Summary {
  const rows = new Map<string, SummaryRow>();
  const impossible = new Map<string, Impossible>();
  const failures: Failure[] = [];
  for (const result of results) {
    const { device, outcome } = result;
    const { kernel, group, shape } = result.case;
    const fail = (problem: string) => failures.push({ device, kernel, group, shape, problem });
    if (outcome.kind === "impossible") {
      const key = [device, kernel, outcome.reason].join("\n");
      const entry = impossible.get(key) ?? { device, kernel, reason: outcome.reason, cases: 0 };
      entry.cases++;
      impossible.set(key, entry);
    } else if (outcome.kind === "broken") fail(`cannot be run: ${outcome.reason}`);
    else {
      addChecked(rows, result, outcome.findings);
      for (const { output, problem } of outcome.findings) if (problem !== null) fail(`${output}: ${problem}`);
    }
  }
  const cases = results.filter(({ outcome }) => outcome.kind !== "impossible").length;
  return {
    isPassed: failures.length === 0 && cases > 0,
    cases,
    devices: [...new Set(results.map(({ device }) => device))],
    rows: [...rows.values()],
    failures,
    impossible: [...impossible.values()],
  };
}
