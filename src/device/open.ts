import { checkOneOf } from "../base/checks.ts";
import { errorMessage } from "../base/errors.ts";
import type { CpuDeviceOptions } from "./cpu/cpu-device.ts";
import type { CudaDeviceOptions } from "./cuda/cuda-device.ts";
import type { Device } from "./device.ts";
import type { WebGpuDeviceOptions } from "./webgpu/webgpu-device.ts";

/** Devices this build can open, in the order in which `openDevice` tries them. */
export const deviceKinds = ["cuda", "webgpu", "cpu"] as const;

/** Options of `openDevice`: the device's kind and what each kind takes. */
export interface OpenDeviceOptions
  extends CpuDeviceOptions,
    Pick<CudaDeviceOptions, "gpu">,
    Pick<WebGpuDeviceOptions, "disableFeatures" | "memoryBytes"> {
  /**
   * Forces a device, as {@link parseDevice} reads it; default: `FLASHMLA_DEVICE`, else the first that opens.
   */
  readonly kind?: string | undefined;
  /** Called for every device that is passed over, with the reason. */
  readonly onPassedOver?: (kind: (typeof deviceKinds)[number], reason: string) => void;
}

type Kind = (typeof deviceKinds)[number];

/** Reads `cuda`, `webgpu`, `cpu`, or `cuda:1` for the GPU of index 1. Throws RangeError, or TypeError for what is no string. */
export function parseDevice(text: string): { readonly kind: Kind; readonly gpu?: number } {
  const [, index] = /^cuda:(\d{1,3})$/.exec(text) ?? [];
  if (index !== undefined) return { kind: "cuda", gpu: Number(index) };
  return { kind: checkOneOf("device", text, deviceKinds) };
}

async function open(kind: Kind, options: OpenDeviceOptions, isForced: boolean): Promise<Device> {
  if (kind === "cuda") {
    const { gpu, ...rest } = options;
    return (await import("./cuda/cuda-device.ts")).CudaDevice.open(
      gpu === undefined ? rest : { gpu, ...rest },
    );
  }
  if (kind === "webgpu") {
    const { poison, disableFeatures, memoryBytes } = options;
    const { WebGpuDevice } = await import("./webgpu/webgpu-device.ts");
    return WebGpuDevice.open({
      ...(poison === undefined ? {} : { poison }),
      ...(disableFeatures === undefined ? {} : { disableFeatures }),
      ...(memoryBytes === undefined ? {} : { memoryBytes }),
      allowSoftware: isForced,
    });
  }
  return (await import("./cpu/cpu-device.ts")).CpuDevice.open(options);
}

/**
 * Opens the wanted device, or the best one that is here: CUDA, else WebGPU on a GPU, else the CPU. Throws RangeError for a
 * kind that this build does not know, UserError when the device cannot be opened.
 */
export async function openDevice(options: OpenDeviceOptions = {}): Promise<Device> {
  const environment = typeof process === "undefined" ? undefined : process.env?.FLASHMLA_DEVICE;
  const forced = options.kind ?? (environment || undefined);
  if (forced !== undefined) {
    const { kind, ...gpu } = parseDevice(forced);
    return open(kind, { ...options, ...gpu }, true);
  }
  for (const kind of ["cuda", "webgpu"] as const) {
    try {
      return await open(kind, options, false);
    } catch (error) {
      options.onPassedOver?.(kind, errorMessage(error));
    }
  }
  return open("cpu", options, false);
}
