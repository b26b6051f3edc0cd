import { chooseGpuShapes, gpuTableOf, runGpuBench } from "../../bench/gpu-run.ts";
import { createDeviceReport, threeDigits, writeReport } from "../../bench/report.ts";
import { openDevice } from "../../device/open.ts";
import { formatTable, note, paint, printJson, printLine } from "../output.ts";

/** Flags of `bench kernel` that a GPU knows. */
export interface GpuKernelFlags {
  readonly case: string;
  readonly rounds: number;
  readonly out?: string;
  readonly name: string;
  readonly json?: boolean;
}

/** `flashmla bench kernel --device cuda`: mla-decode beside what the GPU's memory and tensor cores reach in the same process. */
export async function benchGpuKernel(flags: GpuKernelFlags, version: string): Promise<void> {
  const shapes = chooseGpuShapes(flags.case);
  const device = await openDevice({ kind: "cuda" });
  try {
    const onCase = (name: string, index: number) => note(`[${index + 1}/${shapes.length}] ${name}`);
    const measured = await runGpuBench(device, shapes, flags.rounds, onCase);
    const named = { name: flags.name, rounds: flags.rounds, ...measured };
    const report = createDeviceReport(named, version, device);
    if (!flags.json) {
      const { bytesPerSecond, flopsPerSecond } = report.ceilings;
      printLine(
        `${report.device}: reads ${threeDigits(bytesPerSecond / 1e9)} GB/s, multiplies ${threeDigits(flopsPerSecond / 1e12)} ` +
          "TFLOPS; each call within a graph of many\n",
      );
      const [head = "", ...lines] = formatTable(gpuTableOf(report)).split("\n");
      printLine([paint.bold(head), ...lines, ""].join("\n"));
    }
    if (flags.out !== undefined) note(`Written to ${await writeReport(report, flags.out)}`);
    printJson(report);
  } finally {
    await device.close();
  }
}
