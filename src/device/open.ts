import { checkOneOf } from "../base/checks.ts";
import { errorMessage } from "../base/errors.ts";
import type { CpuDeviceOptions } from "./cpu/cpu-device.ts";
import type { CudaDeviceOptions } from "./cuda/cuda-device.ts";
import type { Device } from "./device.ts";

/** Devices this build can open, in the order in which `openDevice` tries them. */
export const deviceKinds = ["cuda", "cpu"] as const;

/** Options of `openDevice`: the device's kind and what each kind takes. */
export interface OpenDeviceOptions extends CpuDeviceOptions, Pick<CudaDeviceOptions, "gpu"> {
  /** Forces a device; default: `FLASHMLA_DEVICE`, else the first that opens and has what is wanted. */
  readonly kind?: string | undefined;
  /**
   * What the device has to run when the choice is open: whole models (the default), or `mlaDecode` at least. CUDA has
   * no more than that so far.
   */
  readonly wanted?: "models" | "attention";
  /** Called for every device that is passed over, with the reason. */
  readonly onPassedOver?: (kind: (typeof deviceKinds)[number], reason: string) => void;
}

async function open(kind: (typeof deviceKinds)[number], options: OpenDeviceOptions): Promise<Device> {
  if (kind === "cuda") return (await import("./cuda/cuda-device.ts")).CudaDevice.open(options);
  return (await import("./cpu/cpu-device.ts")).CpuDevice.open(options);
}

/**
 * Opens the wanted device, or the best one that is here. Throws RangeError for a kind that this build does not know,
 * UserError when the device cannot be opened.
 */
export async function openDevice(options: OpenDeviceOptions = {}): Promise<Device> {
  const environment = typeof process === "undefined" ? undefined : process.env?.FLASHMLA_DEVICE;
  const forced = options.kind ?? (environment || undefined);
  if (forced !== undefined) return open(checkOneOf("device", forced, deviceKinds), options);
  if (options.wanted !== "attention") {
    options.onPassedOver?.("cuda", "it has mlaDecode only, not yet the kernels of whole models");
    return open("cpu", options);
  }
  try {
    return await open("cuda", options);
  } catch (error) {
    options.onPassedOver?.("cuda", errorMessage(error));
    return open("cpu", options);
  }
}
