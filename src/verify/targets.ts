import type { Device } from "../device/device.ts";
import { deviceKinds, openDevice } from "../device/open.ts";

/** A way to run kernels on this machine: a device, and on the CPU one build of its kernels. */
export interface VerifyTarget {
  readonly kind: string;
  /** Opens it with poisoned memory. Rejects with a UserError that says what is missing where it cannot be had. */
  open(): Promise<Device>;
}

/** Which targets are wanted. */
export interface TargetOptions {
  /** One kind alone; default: every kind that this build knows. */
  readonly kind?: string | undefined;
  /** Threads of the CPU. */
  readonly threads?: number | undefined;
  /** What WebGPU does without, as one variant; default: every variant. */
  readonly disableFeatures?: readonly string[] | undefined;
}

/** What WebGPU does without in each of its variants: with every feature there is, and within the default limits. */
const webGpuVariants = [[], ["shader-f16", "subgroups", "subgroup-matrix", "raised-limits"]];

/**
 * Everything that kernels can be run on: GPUs as they are, WebGPU once more within its default limits, the CPU once with
 * relaxed SIMD and once without.
 */
export function verifyTargets({ kind, threads, disableFeatures }: TargetOptions = {}): VerifyTarget[] {
  const kinds = kind === undefined ? deviceKinds : [kind];
  const onCpu = threads === undefined ? { poison: true } : { poison: true, threads };
  return kinds.flatMap((one): VerifyTarget[] => {
    if (one === "webgpu") {
      const variants = disableFeatures === undefined ? webGpuVariants : [disableFeatures];
      return variants.map((without) => ({
        kind: one,
        open: () => openDevice({ kind: one, poison: true, disableFeatures: without }),
      }));
    }
    if (one !== "cpu") return [{ kind: one, open: () => openDevice({ kind: one, poison: true }) }];
    return (["relaxed", "simd"] as const).map((variant) => ({
      kind: one,
      open: () => openDevice({ kind: one, variant, ...onCpu }),
    }));
  });
}
