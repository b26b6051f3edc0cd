import { checkOneOf } from "../base/checks.ts";
import { UserError } from "../base/errors.ts";
import { chooseDevice, type DeviceCandidate, type DeviceChoiceOptions } from "./choose-device.ts";
import type { CpuDeviceOptions } from "./cpu/cpu-device.ts";
import type { CudaDeviceOptions } from "./cuda/cuda-device.ts";
import type { Device } from "./device.ts";
import type { WebGpuDeviceOptions } from "./webgpu/webgpu-device.ts";

/** Devices this build can open, in the order in which `openDevice` tries them. */
export const deviceKinds = ["cuda", "webgpu", "cpu"] as const;

/** Options of `openDevice`: the device's kind and what each kind takes. */
export interface OpenDeviceOptions
  extends CpuDeviceOptions,
    DeviceChoiceOptions,
    Pick<CudaDeviceOptions, "gpu">,
    Pick<WebGpuDeviceOptions, "disableFeatures" | "memoryBytes"> {
  /**
   * Forces a device, as {@link parseDevice} reads it; default: `FLASHMLA_DEVICE`, else the first that opens and will do.
   */
  readonly kind?: string | undefined;
}

type Kind = (typeof deviceKinds)[number];

/** Reads `cuda`, `webgpu`, `cpu`, or `cuda:1` for the GPU of index 1. Throws RangeError, or TypeError for what is no string. */
export function parseDevice(text: string): { readonly kind: Kind; readonly gpu?: number } {
  const [, index] = /^cuda:(\d{1,3})$/.exec(text) ?? [];
  if (index !== undefined) return { kind: "cuda", gpu: Number(index) };
  return { kind: checkOneOf("device", text, deviceKinds) };
}

const isNode = () => typeof process !== "undefined" && process.versions?.node !== undefined;

/** What is forced, by `kind` or else by the environment; undefined where the choice is open. */
export function forcedDevice(kind?: string): string | undefined {
  const environment = typeof process === "undefined" ? undefined : process.env?.FLASHMLA_DEVICE;
  return kind ?? (environment || undefined);
}

async function openWebGpu(options: OpenDeviceOptions, isForced: boolean): Promise<Device> {
  const { poison, disableFeatures, memoryBytes } = options;
  if (!isForced && isNode()) {
    const reason = (await import("./webgpu/probe.ts")).whyNotWebGpu();
    if (reason !== null) throw new UserError(reason);
  }
  const { WebGpuDevice } = await import("./webgpu/webgpu-device.ts");
  return WebGpuDevice.open({
    ...(poison === undefined ? {} : { poison }),
    ...(disableFeatures === undefined ? {} : { disableFeatures }),
    ...(memoryBytes === undefined ? {} : { memoryBytes }),
    allowSoftware: isForced,
  });
}

async function open(kind: Kind, options: OpenDeviceOptions, isForced: boolean): Promise<Device> {
  if (kind === "webgpu") return openWebGpu(options, isForced);
  if (kind === "cpu") return (await import("./cpu/cpu-device.ts")).CpuDevice.open(options);
  const { gpu, ...rest } = options;
  const { CudaDevice } = await import("./cuda/cuda-device.ts");
  return CudaDevice.open(gpu === undefined ? rest : { gpu, ...rest });
}

/**
 * Opens the wanted device, or the best one that is here and will do: CUDA, else WebGPU on a GPU, else the CPU. In Node WebGPU is looked
 * for only where the system shows a GPU, and by another process first. Throws RangeError for a kind that this build does not
 * know, UserError when the device cannot be opened or will not do.
 */
export async function openDevice(options: OpenDeviceOptions = {}): Promise<Device> {
  const forced = forcedDevice(options.kind);
  const wanted = forced === undefined ? deviceKinds.map((kind) => ({ kind })) : [parseDevice(forced)];
  const candidates = wanted.map(({ kind, ...gpu }): DeviceCandidate => {
    return { kind, open: () => open(kind, { ...options, ...gpu }, forced !== undefined) };
  });
  return chooseDevice(candidates, options);
}
