import { checkOneOf } from "../base/checks.ts";
import type { CpuDeviceOptions } from "./cpu/cpu-device.ts";
import type { Device } from "./device.ts";

/** Devices this build can open, in the order in which `openDevice` tries them. */
export const deviceKinds = ["cpu"] as const;

/** Options of `openDevice`: the device's kind and what each kind takes. */
export interface OpenDeviceOptions extends CpuDeviceOptions {
  /** Forces a device; default: `FLASHMLA_DEVICE`, else the first that opens. */
  readonly kind?: string | undefined;
}

/**
 * Opens the wanted device, or the best one that is here. Throws RangeError for a kind that this build does not know,
 * UserError when the device cannot be opened.
 */
export async function openDevice(options: OpenDeviceOptions = {}): Promise<Device> {
  const environment = typeof process === "undefined" ? undefined : process.env?.FLASHMLA_DEVICE;
  checkOneOf("device", options.kind ?? (environment || deviceKinds[0]), deviceKinds);
  const { CpuDevice } = await import("./cpu/cpu-device.ts");
  return CpuDevice.open(options);
}
