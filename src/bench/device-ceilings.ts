import type { Device } from "../device/device.ts";
import { type Ceilings, createCeilingMeter } from "./ceilings.ts";
import { fillRandom, measureGpuCeilings } from "./gpu-memory.ts";

/** What the GPU's read ceiling streams. */
const POOL_BYTES = 2 ** 32;
const CPU_ROUNDS = 5;

/** The better of each of two measurements; one of them may be missing. */
export function bestCeilings(a: Ceilings | null, b: Ceilings | null): Ceilings | null {
  if (a === null || b === null) return a ?? b;
  return {
    bytesPerSecond: Math.max(a.bytesPerSecond, b.bytesPerSecond),
    flopsPerSecond: Math.max(a.flopsPerSecond, b.flopsPerSecond),
  };
}

function cpuCeilings(device: Device): Ceilings | null {
  const meter = createCeilingMeter(device);
  try {
    let best: Ceilings | null = null;
    for (let round = 0; round < CPU_ROUNDS; round++) best = bestCeilings(best, meter.measure());
    return best;
  } finally {
    meter.free();
  }
}

async function gpuCeilings(device: Device): Promise<Ceilings> {
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
 * bf16 tensor cores on a Hopper GPU. Null on devices that have no such measurement.
 */
export async function measureDeviceCeilings(device: Device): Promise<Ceilings | null> {
  if (device.kind === "cpu") return cpuCeilings(device);
  if (device.kind === "cuda" && device.limits.features.has("sm_90")) return gpuCeilings(device);
  return null;
}
