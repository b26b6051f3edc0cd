import { availableParallelism } from "node:os";
import { type Command, InvalidArgumentError, Option } from "commander";
import { UserError } from "../../base/errors.ts";
import { matchesWords } from "../../bench/case.ts";
import { kernelCases } from "../../bench/cases/all.ts";
import { type BenchReport, ceilingTableOf, createReport, tableOf, writeReport } from "../../bench/report.ts";
import { runBench } from "../../bench/run.ts";
import type { Device } from "../../device/device.ts";
import { openDevice } from "../../device/open.ts";
import { deviceFlag, integerFlag, nameFlag } from "../flags.ts";
import { formatTable, note, paint, printJson, printLine } from "../output.ts";
import { checkPlaces } from "../output-places.ts";
import { addBenchCompareCommand } from "./bench-compare.ts";
import { benchGpuKernel } from "./bench-gpu.ts";
import { addBenchLayerCommand } from "./bench-layer.ts";
import { addBenchModelCommand } from "./bench-model.ts";

interface KernelFlags {
  readonly device: string;
  readonly threads: readonly number[];
  readonly variant?: "simd" | "relaxed";
  readonly case?: string;
  readonly rounds: number;
  readonly out?: string;
  readonly name: string;
  readonly json?: boolean;
}

function threadsFlag(text: string): number[] {
  return text.split(",").map(integerFlag(1, 64));
}

/** The kernels' devices here: the CPU, or a GPU through CUDA. */
function kernelDeviceFlag(text: string): string {
  if (text !== "webgpu") return deviceFlag(text);
  throw new InvalidArgumentError("Expected cpu, cuda, or cuda:1 for the GPU of index 1.");
}

/** The cases whose names hold every word of `filter`. Throws UserError, naming the cases, when there is none. */
function chooseCases(filter = "") {
  const chosen = kernelCases.filter(({ name }) => matchesWords(name, filter));
  if (chosen.length > 0) return chosen;
  const names = kernelCases.map(({ name }) => `  ${name}`).join("\n");
  throw new UserError(`No case matches ${JSON.stringify(filter)}; give words of one of these:\n${names}`);
}

async function measureKernels(flags: KernelFlags, version: string): Promise<BenchReport> {
  const cases = chooseCases(flags.case);
  const devices: Device[] = [];
  try {
    const variant = flags.variant === undefined ? {} : { variant: flags.variant };
    for (const threads of flags.threads) devices.push(await openDevice({ kind: "cpu", threads, ...variant }));
    const onCase = (name: string, index: number) => note(`[${index + 1}/${cases.length}] ${name}`);
    const measured = await runBench({ cases, devices, rounds: flags.rounds, onCase });
    const features = [...(devices[0]?.limits.features ?? [])];
    return createReport({ name: flags.name, features, rounds: flags.rounds, ...measured }, version);
  } finally {
    await Promise.all(devices.map((device) => device.close()));
  }
}

function printTable(rows: readonly (readonly string[])[]): void {
  const [head = "", ...lines] = formatTable(rows).split("\n");
  printLine([paint.bold(head), ...lines, ""].join("\n"));
}

async function benchKernel(flags: KernelFlags, version: string): Promise<void> {
  checkPlaces(flags);
  if (flags.device !== "cpu") return benchGpuKernel(flags, version);
  const report = await measureKernels(flags, version);
  if (!flags.json) {
    printLine(
      `${report.machine.cpu}, ${report.features.join(", ")}, ceilings and rates: the best of the rounds; a case's ceiling: of its own\n`,
    );
    printTable(ceilingTableOf(report.ceilings));
    printTable(tableOf(report.results));
  }
  if (flags.out !== undefined) note(`Written to ${await writeReport(report, flags.out)}`);
  printJson(report);
}

/** Adds `flashmla bench`: speed beside the ceilings that the same run measures. */
export function addBenchCommand(program: Command): void {
  const bench = program
    .command("bench")
    .description("Measure speed beside the ceilings of this machine, measured in the same run.");
  const counts = [...new Set([1, availableParallelism()])];
  bench
    .command("kernel")
    .description("Check every kernel against its float64 reference, then time it. The last line is JSON.")
    .addOption(
      new Option(
        "--device <kind>",
        "cpu, or cuda: mla-decode at many sizes, and what else a 7B model runs (cuda:1 is the GPU of index 1)",
      )
        .argParser(kernelDeviceFlag)
        .default("cpu"),
    )
    .addOption(
      new Option("--threads <list>", "thread counts, one result each")
        .argParser(threadsFlag)
        .default(counts, counts.join(",")),
    )
    .addOption(new Option("--variant <build>", "build of the CPU kernels").choices(["relaxed", "simd"]))
    .option("--case <words>", "only the cases whose names hold all these words")
    .option("--rounds <n>", "timings of each case: their median and their best", integerFlag(1, 1000), 21)
    .option("--out <folder>", "also write <folder>/<machine>/<date>-<name>.json")
    .option("--name <name>", "the name in that path", nameFlag, "kernel")
    .option("--json", "print the JSON line alone")
    .addHelpText(
      "after",
      '\nExample: flashmla bench kernel --case "mla-decode s=4096" --threads 1,2 --out benchmarks/results',
    )
    .action((flags: KernelFlags) => benchKernel(flags, program.version() ?? ""));
  addBenchModelCommand(bench, program.version() ?? "");
  addBenchCompareCommand(bench, program.version() ?? "");
  addBenchLayerCommand(bench, program.version() ?? "");
}
