import { cpus, totalmem } from "node:os";
import type { Command } from "commander";
import { errorMessage } from "../../base/errors.ts";
import { openCublasLibrary } from "../../device/cuda/cublas-library.ts";
import { listCudaGpus } from "../../device/cuda/cuda-device.ts";
import { problemOf } from "../../device/cuda/gpu.ts";
import { loadDriverLibrary } from "../../device/cuda/library.ts";
import { openDevice } from "../../device/open.ts";
import { openFlaggedDevice } from "../device-choice.ts";
import { formatBytes, formatTable, paint, printJson, printLine } from "../output.ts";

interface DeviceReport {
  readonly kind: string;
  /** Of a GPU under CUDA, in the driver's order: what `--device cuda:1` counts by; null for the other kinds. */
  readonly index: number | null;
  readonly available: boolean;
  /** The device, or what is missing. */
  readonly name: string;
  readonly memoryBytes: number | null;
  readonly features: readonly string[];
}

/** One device as it is opened without further wishes, or what is missing. */
async function reportOpened(kind: "cpu" | "webgpu"): Promise<DeviceReport> {
  try {
    const device = await openDevice({ kind });
    const { memoryBytes, features } = device.limits;
    await device.close();
    return { kind, index: null, available: true, name: device.name, memoryBytes, features: [...features] };
  } catch (error) {
    return missing(kind, errorMessage(error));
  }
}

/** What NVIDIA's matrix library adds to CUDA, or what is missing of it. */
async function findCublas(): Promise<{ features: string[]; words: string }> {
  try {
    openCublasLibrary(await loadDriverLibrary());
    return { features: ["cublaslt"], words: "cuBLASLt for prompts" };
  } catch (error) {
    return { features: [], words: `prompts in float32, several times slower: ${errorMessage(error)}` };
  }
}

/** One report for each GPU, or one that says what is missing. */
async function reportCuda(): Promise<DeviceReport[]> {
  try {
    const gpus = await listCudaGpus();
    const cublas = await findCublas();
    return gpus.map((gpu, index) => {
      const { name, memoryBytes, capability } = gpu;
      const problem = problemOf(gpu);
      if (problem !== null) return { ...missing("cuda", problem), index, memoryBytes };
      const features = [`sm_${capability}`, ...cublas.features];
      const words = `${name}, sm_${capability}, ${cublas.words}`;
      return { kind: "cuda", index, available: true, name: words, memoryBytes, features };
    });
  } catch (error) {
    return [missing("cuda", errorMessage(error))];
  }
}

function missing(kind: string, why: string): DeviceReport {
  return { kind, index: null, available: false, name: why, memoryBytes: null, features: [] };
}

/** The device that is taken where none is asked for, and why. */
async function reportChoice(): Promise<string | null> {
  const { device, line } = await openFlaggedDevice({});
  await device.close();
  return line;
}

/** Adds `flashmla devices`: what can be opened here, and what is missing for the rest. */
export function addDevicesCommand(program: Command): void {
  program
    .command("devices")
    .description("Show which devices can run models here, and what is missing for the others.")
    .option("--json", "print one JSON object")
    .action(async ({ json }: { json?: boolean }) => {
      const devices = [await reportOpened("cpu"), await reportOpened("webgpu"), ...(await reportCuda())];
      const chosen = await reportChoice();
      if (json) return printJson({ devices, chosen });
      printLine(`${cpus()[0]?.model.trim() ?? "unknown processor"}, ${formatBytes(totalmem())} of memory\n`);
      const rows = devices.map(({ kind, index, available, name, memoryBytes }) => [
        index === null ? kind : `${kind}:${index}`,
        available ? "ready" : "missing",
        memoryBytes === null ? "" : `up to ${formatBytes(memoryBytes)}`,
        name,
      ]);
      const [head = "", ...lines] = formatTable([["device", "state", "memory", "what"], ...rows]).split("\n");
      printLine([paint.bold(head), ...lines].join("\n"));
      printLine(`\ntaken unless another is asked for: ${chosen}`);
    });
}
