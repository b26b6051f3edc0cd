import { type Command, InvalidArgumentError, Option } from "commander";
import { findings } from "../../bench/compare/findings.ts";
import { type CompareReport, comparePage } from "../../bench/compare/page.ts";
import { claimsTable, ownTable, verdictTable } from "../../bench/compare/published-tables.ts";
import type { CompareScope } from "../../bench/compare/rows.ts";
import { runCompare } from "../../bench/compare/run.ts";
import { type CompareShape, compareForms, compareShapes } from "../../bench/compare/shapes.ts";
import {
  breakEvenTable,
  missingSentences,
  rowsTable,
  scopeTitles,
  tuningTable,
} from "../../bench/compare/tables.ts";
import { tuningShares } from "../../bench/compare/tuning.ts";
import { createDeviceReport, writeReport } from "../../bench/report.ts";
import type { Device } from "../../device/device.ts";
import { openDevice } from "../../device/open.ts";
import { writePage } from "../../report/write-page.ts";
import { choicesFlag, integerFlag, nameFlag, numberFlag } from "../flags.ts";
import { deviceOption } from "../model-flags.ts";
import { withInterrupt } from "../model-session.ts";
import { formatTable, note, paint, printJson, printLine } from "../output.ts";
import { checkPlaces } from "../output-places.ts";
import { startProgress } from "../progress.ts";

interface CompareFlags {
  readonly preset?: string;
  readonly contexts: readonly number[];
  readonly batches: readonly number[];
  readonly scopes: readonly CompareScope[];
  readonly forms?: readonly string[];
  readonly layers?: number;
  readonly hidden?: number;
  readonly heads?: number;
  readonly headWidth?: number;
  readonly intermediate?: number;
  readonly vocab?: number;
  readonly minutes: number;
  readonly device?: string;
  readonly threads?: number;
  readonly html?: string;
  readonly out?: string;
  readonly name: string;
  readonly json?: boolean;
}

function listFlag(most: number): (text: string) => number[] {
  return (text) => {
    const values = text.split(",").map(integerFlag(1, most));
    return [...new Set(values)].sort((a, b) => a - b);
  };
}

function multipleFlag(multiple: number, max: number): (text: string) => number {
  const parse = integerFlag(multiple, max);
  return (text) => {
    const value = parse(text);
    if (value % multiple === 0) return value;
    throw new InvalidArgumentError(`Expected a multiple of ${multiple}.`);
  };
}

/** The preset with what the flags change; a changed shape is named so. */
function chooseShape(flags: CompareFlags, device: Device): CompareShape {
  const preset = compareShapes[flags.preset ?? (device.kind === "cuda" ? "7b" : "small")]!;
  const { layers, hidden, heads, headWidth, intermediate, vocab } = flags;
  const changes = Object.entries({ layers, hidden, heads, headWidth, intermediate, vocab }).filter(
    ([, value]) => value !== undefined,
  );
  if (changes.length === 0) return preset;
  const name = [preset.name, ...changes.map(([key, value]) => `${key}=${value}`)].join(" ");
  return { ...preset, ...Object.fromEntries(changes), name };
}

function printTable(title: string, rows: readonly (readonly string[])[]): void {
  const [head = "", ...lines] = formatTable(rows).split("\n");
  printLine([paint.bold(title), paint.dim(head), ...lines, ""].join("\n"));
}

function printReport(report: CompareReport): void {
  const { rows } = report;
  const shares = tuningShares(rows, report.shape);
  for (const sentence of findings(rows, shares)) printLine(sentence);
  printLine();
  for (const scope of new Set(rows.map((row) => row.scope)))
    printTable(scopeTitles[scope], rowsTable(rows, scope));
  printTable("break-even, by lines between measured neighbours", breakEvenTable(rows));
  if (shares.length > 0)
    printTable("attention kernels beside the ceiling that binds them", tuningTable(shares));
  const own = ownTable(rows);
  if (own.length > 1) printTable("ours beside the published ratios: whole model, batch 1", own);
  printTable("published claims beside arithmetic: computed, not measured", claimsTable());
  printTable("which of them follow", verdictTable());
  for (const sentence of missingSentences(rows)) printLine(sentence);
}

async function measure(flags: CompareFlags, device: Device, signal: AbortSignal) {
  const shape = chooseShape(flags, device);
  const forms = compareForms.filter(({ id }) => flags.forms?.includes(id) ?? true);
  const { scopes, contexts, batches } = flags;
  const progress = startProgress("comparing", "cases");
  try {
    const rows = await runCompare({
      ...{ device, shape, scopes, contexts, batches, forms, signal, seconds: 60 * flags.minutes },
      onRow: (_, done, total) => progress.update(done, total),
    });
    const isComplete = rows.every(({ outcome }) => !["no time", "interrupted"].includes(outcome.status));
    return { name: flags.name, device: device.name, shape, isComplete, rows };
  } finally {
    progress.stop();
  }
}

async function benchCompare(flags: CompareFlags, version: string, signal: AbortSignal): Promise<void> {
  checkPlaces(flags);
  const threads = flags.threads === undefined ? {} : { threads: flags.threads };
  const device = await openDevice({ kind: flags.device, ...threads });
  let report: CompareReport;
  try {
    report = createDeviceReport(await measure(flags, device, signal), version, device);
  } finally {
    await device.close();
  }
  if (!flags.json) printReport(report);
  if (flags.out !== undefined) note(`Written to ${await writeReport(report, flags.out)}`);
  if (flags.html !== undefined) {
    await writePage(comparePage(report), flags.html);
    note(`Written to ${flags.html}`);
  }
  printJson(report);
  if (report.rows.some(({ outcome }) => outcome.status === "failed")) process.exitCode = 1;
}

/** Adds `flashmla bench compare`. */
export function addBenchCompareCommand(bench: Command, version: string): void {
  bench
    .command("compare")
    .description(
      "Compare standard, flash and latent attention on this machine, at equal model size, with random weights. The last line is JSON.",
    )
    .addOption(
      new Option("--preset <name>", "shape; default: small, on a GPU 7b").choices(Object.keys(compareShapes)),
    )
    .option("--contexts <list>", "cached tokens", listFlag(2 ** 20), [512, 2048, 8192, 32768])
    .option("--batches <list>", "sequences", listFlag(1024), [1, 4, 16, 64])
    .option("--scopes <list>", "attention, model", choicesFlag(["attention", "model"]), [
      "attention",
      "model",
    ])
    .option("--forms <list>", "only these rows", choicesFlag(compareForms.map(({ id }) => id)))
    .option("--layers <n>", "instead of the preset's", integerFlag(1, 512))
    .option("--hidden <n>", "hidden width, a multiple of 16", multipleFlag(16, 32_000))
    .option("--heads <n>", "attention heads", integerFlag(1, 256))
    .option("--head-width <n>", "of queries, keys and values, a multiple of 16", multipleFlag(16, 256))
    .option("--intermediate <n>", "MLP width of the full-head rows", multipleFlag(8, 64_000))
    .option("--vocab <n>", "vocabulary", integerFlag(1, 1_000_000))
    .option("--minutes <n>", "begin no row after this long", numberFlag(0.01, 10_000), 9)
    .addOption(deviceOption())
    .option("--threads <n>", "threads of the CPU device", integerFlag(1, 64))
    .option("--html <file>", "also write a report with charts")
    .option("--out <folder>", "also write <folder>/<machine>/<date>-<name>.json")
    .option("--name <name>", "the name in that path", nameFlag, "compare")
    .option("--json", "print the JSON line alone")
    .addHelpText(
      "after",
      "\nExample: flashmla bench compare --contexts 512,4096 --batches 1,8 --html report.html",
    )
    .action((flags: CompareFlags) => withInterrupt((signal) => benchCompare(flags, version, signal)));
}
