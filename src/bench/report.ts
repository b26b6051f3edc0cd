import { join } from "node:path";
import type { Device } from "../device/device.ts";
import { replaceWithText } from "../files/replace-file.ts";
import { describeCommit, describeMachine, type Machine } from "./machine.ts";
import type { CaseResult, CeilingResult } from "./run.ts";

/** What every report says about where it comes from. */
export interface ReportOrigin {
  /** ISO 8601, UTC. */
  readonly date: string;
  readonly commit: string | null;
  readonly machine: Machine;
  readonly versions: { readonly flashmla: string; readonly node: string; readonly v8: string };
}

/** Something measured, with its origin. */
export type Report<Measured extends { readonly name: string }> = Measured & ReportOrigin;

/** One run of the kernels' benchmark, as it is kept under benchmarks/results. */
export interface BenchReport extends ReportOrigin {
  readonly name: string;
  /** The device's features, such as `relaxed-simd`. */
  readonly features: readonly string[];
  readonly rounds: number;
  readonly ceilings: readonly CeilingResult[];
  readonly results: readonly CaseResult[];
}

/** Adds date, commit, machine and versions to what was measured. */
export function createReport<Measured extends { readonly name: string }>(
  measured: Measured,
  flashmla: string,
): Report<Measured> {
  const versions = { flashmla, node: process.versions.node, v8: process.versions.v8 };
  const about = { date: new Date().toISOString(), commit: describeCommit(), machine: describeMachine() };
  return { ...measured, ...about, versions };
}

/** A folder name from a GPU's, without its memory and socket: "NVIDIA H100 80GB HBM3, 132 multiprocessors" → "h100". */
function gpuSlug(name: string): string {
  const [gpu = ""] = name.toLowerCase().split(",");
  const words = gpu
    .split(/[^a-z0-9]+/)
    .filter((word) => !/^(nvidia|geforce|\d+gb|hbm.*|sxm.*|pcie)?$/.test(word));
  return words.join("-") || "gpu";
}

/** {@link createReport} of what `device` did: a GPU's report is kept under the GPU's name. */
export function createDeviceReport<Measured extends { readonly name: string }>(
  measured: Measured,
  flashmla: string,
  device: Pick<Device, "kind" | "name">,
): Report<Measured> {
  const report = createReport(measured, flashmla);
  if (device.kind === "cpu") return report;
  return { ...report, machine: { ...report.machine, slug: gpuSlug(device.name) } };
}

/**
 * Writes `folder`/<machine>/<date>-<name>.json, which appears when it is complete, and resolves to its path. Rejects with
 * a UserError when it cannot be written.
 */
export async function writeReport(
  report: ReportOrigin & { readonly name: string },
  folder: string,
): Promise<string> {
  const path = join(folder, report.machine.slug, `${report.date.slice(0, 10)}-${report.name}.json`);
  await replaceWithText(path, `${JSON.stringify(report, null, 1)}\n`);
  return path;
}

/** A number in three significant digits, without exponent. */
export function threeDigits(value: number): string {
  if (value >= 100) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** FLOPs a second for people: 51.2 GFLOPS, 862 TFLOPS. */
export function formatFlops(flopsPerSecond: number): string {
  return flopsPerSecond < 1e12
    ? `${threeDigits(flopsPerSecond / 1e9)} GFLOPS`
    : `${threeDigits(flopsPerSecond / 1e12)} TFLOPS`;
}

function formatTime(milliseconds: number): string {
  return milliseconds < 1 ? `${threeDigits(milliseconds * 1e3)} µs` : `${threeDigits(milliseconds)} ms`;
}

/** The results as rows of a table; the first is the head. */
export function tableOf(results: readonly CaseResult[]): string[][] {
  const head = [
    "case",
    "threads",
    "median",
    "best",
    "GFLOPS",
    "GB/s",
    "of ceiling",
    "bound by",
    "worst error",
  ];
  const rows = results.map((result) => [
    result.name,
    String(result.threads),
    formatTime(result.milliseconds),
    formatTime(result.bestMilliseconds),
    threeDigits(result.gflops),
    threeDigits(result.gigabytesPerSecond),
    `${(100 * result.fraction).toFixed(0)} %`,
    result.bound,
    result.worstError.toExponential(1),
  ]);
  return [head, ...rows];
}

/** The ceilings as rows of a table; the first is the head. */
export function ceilingTableOf(ceilings: readonly CeilingResult[]): string[][] {
  const rows = ceilings.map(({ threads, gflops, gigabytesPerSecond }) => [
    String(threads),
    formatFlops(gflops * 1e9),
    `${threeDigits(gigabytesPerSecond)} GB/s`,
  ]);
  return [["threads", "multiply-add", "read"], ...rows];
}
