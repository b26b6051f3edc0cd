import type { Command } from "commander";
import { type GpuLayerResult, type GpuLayerShape, measureGpuLayer } from "../../bench/gpu-layer.ts";
import { measureGpuCeilings } from "../../bench/gpu-memory.ts";
import { createDeviceReport, threeDigits, writeReport } from "../../bench/report.ts";
import { openDevice } from "../../device/open.ts";
import { integerFlag } from "../flags.ts";
import { formatTable, note, paint, printJson, printLine } from "../output.ts";

/** Heads, sequences, and the context lengths that are measured with them. */
const shapes: readonly (readonly [heads: number, batch: number, lengths: readonly number[]])[] = [
  [128, 1, [512, 4096, 8192, 32_768]],
  [16, 1, [512, 4096, 8192, 32_768]],
  [128, 8, [512, 4096, 8192]],
  [128, 32, [512, 4096]],
  [16, 32, [512, 4096]],
];
const CEILING_BYTES = 4e9;

interface LayerFlags {
  readonly rounds: number;
  readonly out?: string;
  readonly name: string;
  readonly json?: boolean;
}

function tableOf(results: readonly GpuLayerResult[], bytesPerSecond: number): string[][] {
  const head = ["heads", "batch", "context", "µs", "floor µs", "prologue", "decode", "epilogue", "error"];
  const rows = results.map(({ heads, batch, length, bytes, worstError, ...times }) => [
    ...[heads, batch, length].map(String),
    ...[times.microseconds, (bytes / bytesPerSecond) * 1e6, times.prologue, times.decode, times.epilogue].map(
      threeDigits,
    ),
    worstError.toExponential(1),
  ]);
  return [head, ...rows];
}

async function benchLayer(flags: LayerFlags, version: string): Promise<void> {
  const wanted: GpuLayerShape[] = shapes.flatMap(([heads, batch, lengths]) =>
    lengths.map((length) => ({ heads, batch, length })),
  );
  const device = await openDevice({ kind: "cuda" });
  try {
    const pool = device.allocate(CEILING_BYTES, "read ceiling");
    const ceilings = await measureGpuCeilings(device, pool);
    pool.free();
    const results: GpuLayerResult[] = [];
    for (const [i, shape] of wanted.entries()) {
      note(`[${i + 1}/${wanted.length}] h=${shape.heads} b=${shape.batch} s=${shape.length}`);
      results.push(await measureGpuLayer(device, shape, flags.rounds));
    }
    const measured = { name: flags.name, device: device.name, rounds: flags.rounds, ceilings, results };
    const report = createDeviceReport(measured, version, device);
    if (!flags.json) {
      printLine(
        `${device.name}: reads ${threeDigits(ceilings.bytesPerSecond / 1e9)} GB/s. From a layer's projections to its heads' values, d_c=512, ` +
          "bf16, weights and caches of 16 layers in turn; stages: each in a graph of its own\n",
      );
      const [head = "", ...lines] = formatTable(tableOf(results, ceilings.bytesPerSecond)).split("\n");
      printLine([paint.bold(head), ...lines, ""].join("\n"));
    }
    if (flags.out !== undefined) note(`Written to ${await writeReport(report, flags.out)}`);
    printJson(report);
  } finally {
    await device.close();
  }
}

/** Adds `flashmla bench layer`. */
export function addBenchLayerCommand(bench: Command, version: string): void {
  bench
    .command("layer")
    .description(
      "Check and time the fused attention layer on CUDA: absorb, rotary, norm, append, attention, merge, W_UV. The last line is JSON.",
    )
    .option("--rounds <n>", "timings of each case, of which the median counts", integerFlag(1, 1000), 21)
    .option("--out <folder>", "also write <folder>/<machine>/<date>-<name>.json")
    .option("--name <name>", "the name in that path", "layer")
    .option("--json", "print the JSON line alone")
    .addHelpText("after", "\nExample: flashmla bench layer --out benchmarks/results")
    .action((flags: LayerFlags) => benchLayer(flags, version));
}
