import { type Command, InvalidArgumentError, Option } from "commander";
import { errorMessage } from "../../base/errors.ts";
import { type GpuLayerResult, measureGpuLayer } from "../../bench/gpu-layer.ts";
import type { GpuLayerShape } from "../../bench/gpu-layer-memory.ts";
import { type GpuCeilings, measureGpuCeilings } from "../../bench/gpu-memory.ts";
import { createDeviceReport, threeDigits, writeReport } from "../../bench/report.ts";
import type { Device } from "../../device/device.ts";
import { openDevice } from "../../device/open.ts";
import { deviceFlag, integerFlag, nameFlag } from "../flags.ts";
import { formatTable, note, paint, printJson, printLine } from "../output.ts";
import { checkPlaces } from "../output-places.ts";

/** Heads, sequences, and the context lengths that are measured with them. */
const grid: readonly (readonly [heads: number, batch: number, lengths: readonly number[]])[] = [
  [128, 1, [512, 4096, 8192, 32_768]],
  [16, 1, [512, 4096, 8192, 32_768]],
  [128, 8, [512, 4096, 8192]],
  [128, 32, [512, 4096]],
  [16, 32, [512, 4096]],
];
const shapes: readonly GpuLayerShape[] = grid.flatMap(([heads, batch, lengths]) =>
  lengths.map((length) => ({ heads, batch, length })),
);
const CEILING_BYTES = 4e9;

interface LayerFlags {
  readonly device: string;
  readonly rounds: number;
  readonly out?: string;
  readonly name: string;
  readonly json?: boolean;
}

interface LayerReport {
  readonly device: string;
  readonly rounds: number;
  readonly ceilings: GpuCeilings;
  readonly results: readonly GpuLayerResult[];
  /** Shapes that were not timed. */
  readonly failures: readonly { readonly name: string; readonly reason: string }[];
}

function tableOf({ results, ceilings }: LayerReport): string[][] {
  const head = ["heads", "batch", "context", "µs", "floor µs", "of ceiling", "bound by"];
  const stages = ["stages µs", "prologue µs", "decode µs", "epilogue µs", "unfused µs", "error"];
  const rows = results.map(({ heads, batch, length, bytes, flops, worstError, ...times }) => {
    const [memory, compute] = [bytes / ceilings.bytesPerSecond, flops / ceilings.flopsPerSecond];
    const floor = Math.max(memory, compute) * 1e6;
    return [
      ...[heads, batch, length].map(String),
      ...[times.microseconds, floor].map(threeDigits),
      `${((100 * floor) / times.microseconds).toFixed(0)} %`,
      compute > memory ? "compute" : "memory",
      ...[times.stages, times.prologue, times.decode, times.epilogue, times.unfused].map(threeDigits),
      worstError.toExponential(1),
    ];
  });
  return [[...head, ...stages], ...rows];
}

function printReport(report: LayerReport): void {
  const { bytesPerSecond, flopsPerSecond } = report.ceilings;
  printLine(
    `${report.device}: reads ${threeDigits(bytesPerSecond / 1e9)} GB/s, multiplies ${threeDigits(flopsPerSecond / 1e12)} TFLOPS (bf16)\n` +
      "From a layer's projections to its heads' values, d_c=512, bf16, weights and caches of 16 layers in turn;\n" +
      "floor: what the binding ceiling allows for the whole; stages: in three launches that overlap, then each in a graph of its own;\n" +
      "unfused: the same work in separate launches, W_UK and W_UV by cuBLASLt\n",
  );
  const [head = "", ...lines] = formatTable(tableOf(report)).split("\n");
  printLine([paint.bold(head), ...lines, ""].join("\n"));
  for (const { name, reason } of report.failures) printLine(`${paint.red("not timed")}: ${name}: ${reason}`);
}

async function measureCeilings(device: Device): Promise<GpuCeilings> {
  const pool = device.allocate(CEILING_BYTES, "read ceiling");
  try {
    return await measureGpuCeilings(device, pool);
  } finally {
    pool.free();
  }
}

async function measureLayers(device: Device, rounds: number): Promise<LayerReport> {
  const ceilings = await measureCeilings(device);
  const results: GpuLayerResult[] = [];
  const failures: { name: string; reason: string }[] = [];
  for (const [i, shape] of shapes.entries()) {
    const name = `h=${shape.heads} b=${shape.batch} s=${shape.length}`;
    const told = (outcome: string) => note(`[${i + 1}/${shapes.length}] ${name}: ${outcome}`);
    try {
      const result = await measureGpuLayer(device, shape, rounds);
      results.push(result);
      told(`${threeDigits(result.microseconds)} µs`);
    } catch (error) {
      failures.push({ name, reason: errorMessage(error) });
      told(errorMessage(error));
    }
  }
  return { device: device.name, rounds, ceilings, results, failures };
}

async function benchLayer(flags: LayerFlags, version: string): Promise<void> {
  checkPlaces(flags);
  const device = await openDevice({ kind: flags.device });
  try {
    const measured = { name: flags.name, ...(await measureLayers(device, flags.rounds)) };
    const report = createDeviceReport(measured, version, device);
    if (!flags.json) printReport(report);
    if (flags.out !== undefined) note(`Written to ${await writeReport(report, flags.out)}`);
    printJson(report);
    if (report.failures.length > 0) process.exitCode = 1;
  } finally {
    await device.close();
  }
}

function cudaFlag(text: string): string {
  if (/^cuda\b/.test(text)) return deviceFlag(text);
  throw new InvalidArgumentError("Expected cuda, or cuda:1 for the GPU of index 1.");
}

/** Adds `flashmla bench layer`. */
export function addBenchLayerCommand(bench: Command, version: string): void {
  bench
    .command("layer")
    .description(
      "Check and time the fused attention layer on CUDA: absorb, rotary, norm, append, attention, merge, W_UV. The last line is JSON.",
    )
    .addOption(
      new Option("--device <kind>", "which GPU: cuda:1 is the one of index 1")
        .argParser(cudaFlag)
        .default("cuda"),
    )
    .option("--rounds <n>", "timings of each case, of which the median counts", integerFlag(1, 1000), 21)
    .option("--out <folder>", "also write <folder>/<machine>/<date>-<name>.json")
    .option("--name <name>", "the name in that path", nameFlag, "layer")
    .option("--json", "print the JSON line alone")
    .addHelpText("after", "\nExample: flashmla bench layer --out benchmarks/results")
    .action((flags: LayerFlags) => benchLayer(flags, version));
}
