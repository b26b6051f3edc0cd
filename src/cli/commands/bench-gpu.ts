import { chooseGpuCases, type GpuBenchResult, gpuTableOf, runGpuBench } from "../../bench/gpu-run.ts";
import { createDeviceReport, threeDigits, writeReport } from "../../bench/report.ts";
import { openDevice } from "../../device/open.ts";
import { formatTable, note, paint, printJson, printLine } from "../output.ts";

/** Flags of `bench kernel` that a GPU knows. */
export interface GpuKernelFlags {
  readonly device: string;
  readonly case?: string;
  readonly rounds: number;
  readonly out?: string;
  readonly name: string;
  readonly json?: boolean;
}

function printGpuReport(report: GpuBenchResult & { readonly rounds: number }): void {
  const { bytesPerSecond, flopsPerSecond } = report.ceilings;
  printLine(
    `${report.device}: reads ${threeDigits(bytesPerSecond / 1e9)} GB/s, multiplies ${threeDigits(flopsPerSecond / 1e12)} TFLOPS (bf16)\n` +
      `µs: median of ${report.rounds} graphs of many calls; cold: inputs go round 300 MB, warm: the same again and again\n` +
      "floor: what the binding ceiling allows; TFLOPS, GB/s and the share of the ceiling are of the cold time\n",
  );
  const [head = "", ...lines] = formatTable(gpuTableOf(report)).split("\n");
  printLine([paint.bold(head), ...lines, ""].join("\n"));
  for (const { name, reason } of report.failures) printLine(`${paint.red("not timed")}: ${name}: ${reason}`);
}

/**
 * `flashmla bench kernel --device cuda`: kernels beside what the GPU's memory and tensor cores reach in the same process. Exit code 1
 * when a case could not be timed; the others are told all the same.
 */
export async function benchGpuKernel(flags: GpuKernelFlags, version: string): Promise<void> {
  const cases = chooseGpuCases(flags.case ?? "");
  const device = await openDevice({ kind: flags.device });
  try {
    const onCase = (name: string, done: number, outcome: string) =>
      note(`[${done}/${cases.length}] ${name}: ${outcome}`);
    const measured = await runGpuBench(device, cases, flags.rounds, onCase);
    const named = { name: flags.name, rounds: flags.rounds, ...measured };
    const report = createDeviceReport(named, version, device);
    if (!flags.json) printGpuReport(report);
    if (flags.out !== undefined) note(`Written to ${await writeReport(report, flags.out)}`);
    printJson(report);
    if (report.failures.length > 0) process.exitCode = 1;
  } finally {
    await device.close();
  }
}
