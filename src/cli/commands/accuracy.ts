import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type Command, InvalidArgumentError, Option } from "commander";
import { findingsOf } from "../../accuracy/accuracy-findings.ts";
import { accuracyPage } from "../../accuracy/accuracy-page.ts";
import {
  type AccuracyResult,
  accumulationRows,
  errorRows,
  fittedGrowth,
  modelRows,
  type Rows,
  skippedOf,
  skippedRows,
} from "../../accuracy/accuracy-tables.ts";
import { measureModelEffect } from "../../accuracy/model-effect.ts";
import { streamNames } from "../../accuracy/streams.ts";
import { runStudy } from "../../accuracy/study.ts";
import { errorMessage, UserError } from "../../base/errors.ts";
import { createDeviceReport, type Report, writeReport } from "../../bench/report.ts";
import type { Device } from "../../device/device.ts";
import { deviceKinds, openDevice } from "../../device/open.ts";
import { latentDtypes } from "../../kernels/common/latent-cache.ts";
import { writePage } from "../../report/write-page.ts";
import { devicesFlag, integerFlag } from "../flags.ts";
import { findModel, findTokenizer, shippedModel, withInterrupt } from "../model-session.ts";
import { formatTable, note, paint, printJson, printLine } from "../output.ts";
import { checkPlaces } from "../output-places.ts";
import { startProgress } from "../progress.ts";

const heldOutText = fileURLToPath(new URL("../../../data/shakespeare-held-out.txt", import.meta.url));
/** 1k … 1M by fours; the last takes 2.4 GB on the device. */
const defaultLengths = [1024, 4096, 16384, 65536, 262144, 1048576];

interface AccuracyFlags {
  readonly lengths: readonly number[];
  readonly width: 128 | 256 | 512;
  readonly heads: number;
  readonly timeLimit: number;
  readonly device?: readonly string[];
  readonly threads?: number;
  readonly model: string | false;
  readonly text?: string;
  readonly out?: string;
  readonly html?: string;
  readonly json?: boolean;
}

type Measured = AccuracyResult & { readonly name: string };

function lengthsFlag(text: string): number[] {
  const lengths = text.split(",").map(integerFlag(1, 2 ** 22));
  if (lengths.every((length, i) => i === 0 || length > lengths[i - 1]!)) return lengths;
  throw new InvalidArgumentError("Expected ascending numbers separated by commas.");
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new UserError(
      `The text ${path} cannot be read (${errorMessage(error)}); give another with --text.`,
    );
  }
}

async function studyModel(
  device: Device,
  name: string,
  flags: AccuracyFlags,
  deadline: number,
  signal: AbortSignal,
): Promise<AccuracyResult["model"]> {
  const folder = await findModel(name, signal);
  const tokenizer = await findTokenizer(folder);
  const text = readText(flags.text ?? heldOutText);
  const ids = [...tokenizer.encode(text, { addSpecialTokens: false })];
  if (ids.length < 2)
    throw new UserError("The text has fewer than two tokens; give a longer one with --text.");
  const bar = startProgress("Reading held-out text", "tokens");
  try {
    const measured = await measureModelEffect({
      ...{ device, folder: folder.path, config: folder.config, ids, dtypes: latentDtypes, signal },
      ...{ bytes: Buffer.byteLength(text), deadline },
      onToken: (done, total) => bar.update(done, total),
    });
    return { name: name === shippedModel ? "shakespeare-mla" : name, tokens: ids.length, ...measured };
  } finally {
    bar.stop();
  }
}

/** Opens the devices that were asked for, or the best one here. */
async function openDevices({ device: kinds, threads }: AccuracyFlags): Promise<Device[]> {
  const options = threads === undefined ? {} : { threads };
  const opened: Device[] = [];
  try {
    for (const kind of kinds ?? [undefined]) opened.push(await openDevice({ kind, ...options }));
    return opened;
  } catch (error) {
    for (const device of opened) await device.close();
    throw error;
  }
}

async function measure(flags: AccuracyFlags, signal: AbortSignal): Promise<Measured> {
  const deadline = performance.now() + 1000 * flags.timeLimit;
  const devices = await openDevices(flags);
  const bar = startProgress("Measuring attention", "tokens");
  try {
    const first = devices[0]!;
    const model =
      flags.model === false ? null : await studyModel(first, flags.model, flags, deadline, signal);
    const study = await runStudy({
      ...{ devices, streams: streamNames, dtypes: latentDtypes, deadline, signal },
      lengths: flags.lengths,
      widths: { latentWidth: flags.width, ropeWidth: 64, heads: flags.heads },
      onProgress: (done, total) => bar.update(done, total),
    });
    return { name: "accuracy", devices: devices.map(({ kind, name }) => ({ kind, name })), study, model };
  } finally {
    bar.stop();
    for (const device of devices) await device.close();
  }
}

function printTable(rows: Rows): void {
  const [head = "", ...lines] = formatTable(rows).split("\n");
  printLine([paint.bold(head), ...lines, ""].join("\n"));
}

function printResult(result: AccuracyResult): void {
  printLine(`${findingsOf(result).join("\n")}\n`);
  const { study, model } = result;
  if (model !== null && model.effects.length > 0) printTable(modelRows(model.effects));
  for (const rows of [errorRows(study, "out"), errorRows(study, "lse"), accumulationRows(study)])
    printTable(rows);
  if (skippedOf(result).length > 0) printTable(skippedRows(result));
}

const originOf = (report: Report<Measured>): [string, string][] => [
  ["command", "flashmla accuracy"],
  ["date", report.date],
  ["version", `${report.versions.flashmla}, commit ${report.commit ?? "unknown"}`],
  ["machine", report.machine.cpu],
  ["devices", report.devices.map(({ kind, name }) => `${kind}: ${name}`).join("; ")],
  ["method", "docs/accuracy.md"],
];

async function runAccuracy(flags: AccuracyFlags, version: string, signal: AbortSignal): Promise<void> {
  checkPlaces(flags);
  const measured = await measure(flags, signal);
  const report = createDeviceReport(measured, version, measured.devices[0]!);
  if (!flags.json) printResult(report);
  if (flags.html !== undefined) {
    await writePage(accuracyPage(report, originOf(report)), flags.html);
    note(`Written to ${flags.html}`);
  }
  if (flags.out !== undefined) note(`Written to ${await writeReport(report, flags.out)}`);
  printJson({ ...report, growth: fittedGrowth(report.study) });
}

/** Adds `flashmla accuracy`: what each cache format costs, out to a million tokens. */
export function addAccuracyCommand(program: Command): void {
  program
    .command("accuracy")
    .description(
      "What each cache format costs: errors of attention against float64, and of a real model's text.",
    )
    .option("--lengths <list>", "context lengths, ascending", lengthsFlag, defaultLengths)
    .addOption(
      new Option("--width <d_c>", "width of the latent").choices(["128", "256", "512"]).default("512"),
    )
    .option("--heads <n>", "query rows of a context", integerFlag(1, 128), 4)
    .option("--time-limit <s>", "contexts that would end later are left out and named", integerFlag(1), 540)
    .option(
      "--device <list>",
      `devices to measure side by side, of ${deviceKinds.join(", ")}, cuda:1 (the GPU of index 1) …; the model runs on the first; default: the best one here`,
      devicesFlag,
    )
    .option("--threads <n>", "threads of the CPU device; default: all processors", integerFlag(1, 256))
    .addOption(
      new Option("--model <model>", "folder or hub id of the real model").default(
        shippedModel,
        "the model that ships with flashmla",
      ),
    )
    .option("--no-model", "synthetic contexts alone")
    .option("--text <file>", "held-out text of the model; default: an excerpt that ships with flashmla")
    .option("--out <folder>", "also write <folder>/<machine>/<date>-accuracy.json")
    .option("--html <file>", "also write the report with its charts as one HTML file")
    .option("--json", "print the JSON line alone")
    .addHelpText(
      "after",
      "\nMethod and findings: docs/accuracy.md\nExample: flashmla accuracy --html accuracy.html",
    )
    .action((flags: Omit<AccuracyFlags, "width"> & { width: string }) => {
      const width = { "128": 128, "256": 256 }[flags.width] ?? 512;
      return withInterrupt((signal) =>
        runAccuracy({ ...flags, width: width as AccuracyFlags["width"] }, program.version() ?? "", signal),
      );
    });
}
