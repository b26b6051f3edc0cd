import { cpus, totalmem } from "node:os";
import type { Command } from "commander";
import { errorMessage } from "../../base/errors.ts";
import { listCudaGpus } from "../../device/cuda/cuda-device.ts";
import { openDevice } from "../../device/open.ts";
import { formatBytes, formatTable, paint, printJson, printLine } from "../output.ts";

interface DeviceReport {
  readonly kind: string;
  readonly available: boolean;
  readonly name: string;
  readonly memoryBytes: number | null;
  readonly features: readonly string[];
}

async function reportCpu(): Promise<DeviceReport> {
  const device = await openDevice({ kind: "cpu" });
  const { memoryBytes, features } = device.limits;
  const report = { kind: "cpu", available: true, name: device.name, memoryBytes, features: [...features] };
  await device.close();
  return report;
}

/** One report for each GPU, or one that says what is missing. */
async function reportCuda(): Promise<DeviceReport[]> {
  try {
    return (await listCudaGpus()).map(({ name, memoryBytes, capability }) => ({
      kind: "cuda",
      available: true,
      name,
      memoryBytes,
      features: [`sm_${capability}`],
    }));
  } catch (error) {
    return [missing("cuda", errorMessage(error))];
  }
}

async function reportWebGpu(): Promise<DeviceReport> {
  try {
    const device = await openDevice({ kind: "webgpu" });
    const { memoryBytes, features } = device.limits;
    await device.close();
    return { kind: "webgpu", available: true, name: device.name, memoryBytes, features: [...features] };
  } catch (error) {
    return missing("webgpu", errorMessage(error));
  }
}

function missing(kind: string, why: string): DeviceReport {
  return { kind, available: false, name: why, memoryBytes: null, features: [] };
}

/** Adds `flashmla devices`: what can be opened here, and what is missing for the rest. */
export function addDevicesCommand(program: Command): void {
  program
    .command("devices")
    .description("Show which devices can run models here, and what is missing for the others.")
    .option("--json", "print one JSON object")
    .action(async ({ json }: { json?: boolean }) => {
      const devices = [await reportCpu(), await reportWebGpu(), ...(await reportCuda())];
      if (json) return printJson({ devices });
      printLine(`${cpus()[0]?.model.trim() ?? "unknown processor"}, ${formatBytes(totalmem())} of memory\n`);
      const rows = devices.map(({ kind, available, name, memoryBytes }) => [
        kind,
        available ? "ready" : "missing",
        memoryBytes === null ? "" : `up to ${formatBytes(memoryBytes)}`,
        name,
      ]);
      const [head = "", ...lines] = formatTable([["device", "state", "memory", "what"], ...rows]).split("\n");
      printLine([paint.bold(head), ...lines].join("\n"));
    });
}
