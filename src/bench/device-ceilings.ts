import type { Device } from "../device/device.ts";
import { type Ceilings, createCeilingMeter } from "./ceilings.ts";
import { fillRandom, measureGpuCeilings } from "./gpu-memory.ts";
import { measureWebGpuCeilings } from "./webgpu-ceilings.ts";

/** What the GPU's read ceiling streams. */
const POOL_BYTES = 2 ** 32;

const ROUNDS = 5;

/** The better of each of two measurements; one of them may be missing. */
export function bestCeilings(a: Ceilings, b: Ceilings | null): Ceilings;
export function bestCeilings(a: Ceilings | null, b: Ceilings | null): Ceilings | null;
export function bestCeilings(a: Ceilings | null, b: Ceilings | null): Ceilings | null {
  if (a === null || b === null) return a ?? b;
  return {
    bytesPerSecond: Math.max(a.bytesPerSecond, b.bytesPerSecond),
    flopsPerSecond: Math.max(a.flopsPerSecond, b.flopsPerSecond),
  };
}

/** Measures a device's ceilings, again and again. */
export interface CeilingSource {
  /** What the device reaches now: other work on a machine moves it. On a GPU, what it reached when this was opened. */
  measure(): Ceilings;
  /** Gives the memory back. */
  free(): void;
}

async function measureGpu(device: Device): Promise<Ceilings> {
  const pool = device.allocate(Math.min(POOL_BYTES, device.limits.memoryBytes / 4), "read ceiling");
  try {
    await fillRandom(device, pool, 1, 1);
    return await measureGpuCeilings(device, pool);
  } finally {
    pool.free();
  }
}

/**
 * What `device` reads and computes a second at most, in the arithmetic of its attention kernels: float32 multiply-adds on the CPU,
 * bf16 tensor cores on a Hopper GPU, float32 multiply-adds on WebGPU. Null on devices that have no such measurement.
 */
export async function openCeilings(device: Device): Promise<CeilingSource | null> {
  if (device.kind === "cpu") return createCeilingMeter(device);
  if (device.kind === "webgpu") {
    const measured = await measureWebGpuCeilings(device);
    return { measure: () => measured, free: () => {} };
  }
  if (device.kind !== "cuda" || !device.limits.features.has("sm_90")) return null;
  const measured = await measureGpu(device);
  return { measure: () => measured, free: () => {} };
}

/** {@link openCeilings}, measured a few times: the best of them. */
export async function measureDeviceCeilings(device: Device): Promise<Ceilings | null> {
  const source = await openCeilings(device);
  if (source === null) return null;
  try {
    let best: Ceilings | null = null;
    for (let round = 0; round < ROUNDS; round++) best = bestCeilings(best, source.measure());
    return best;
  } finally {
    source.free();
  }
}
