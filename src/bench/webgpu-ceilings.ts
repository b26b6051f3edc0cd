import type { Device, KernelSource } from "../device/device.ts";
import multiplyCode from "./ceilings.multiply-add.wgsl.ts";
import readCode from "./ceilings.read.wgsl.ts";
import type { Ceilings } from "./ceilings.ts";
import { CompareArena } from "./compare/arena.ts";
import { timeRuns } from "./gpu-memory.ts";

const read: KernelSource = {
  name: "bench.read",
  buffers: ["source", "sums"],
  scalars: [["vectors", "i32"]],
  webgpu: { code: readCode },
};

const multiplyAdd: KernelSource = {
  name: "bench.multiply-add",
  buffers: ["sums"],
  scalars: [["steps", "i32"]],
  webgpu: { code: multiplyCode },
};

/** How much is streamed and multiplied. */
interface Effort {
  readonly bytes: number;
  readonly steps: number;
}

/** What tells a GPU from an adapter that computes on the processor. */
const LITTLE: Effort = { bytes: 2 ** 26, steps: 8 };
/** Many times a second-level cache. */
const MUCH: Effort = { bytes: 2 ** 31 - 2 ** 20, steps: 2048 };
/** A device that reads so much a second gets the larger measurement. */
const GPU_BYTES_PER_SECOND = 1e11;
/** Workgroups: several for every multiprocessor of the largest GPUs. */
const WORKGROUPS = 2048;
const WORKGROUP = 256;
const ROUNDS = 5;
const FLOPS_PER_STEP = 2 * 64;

async function measureOnce(device: Device, effort: Effort): Promise<Ceilings> {
  const arena = new CompareArena(device);
  const most = Math.min(device.limits.webgpu!.bindingBytes, device.limits.memoryBytes / 4);
  const bytes = 256 * Math.floor(Math.min(effort.bytes, most) / 256);
  const source = arena.bf16Cache("read ceiling", bytes);
  const sums = arena.reserve("ceiling sums", 256);
  const reading = device.record((launch) => launch(read, WORKGROUPS, [source, sums], [bytes / 16]));
  const adding = device.record((launch) => launch(multiplyAdd, WORKGROUPS, [sums], [effort.steps]));
  try {
    const [reads, adds] = [await timeRuns(reading, ROUNDS), await timeRuns(adding, ROUNDS)];
    const middle = Math.floor(ROUNDS / 2);
    return {
      bytesPerSecond: bytes / (reads[middle]! / 1e3),
      flopsPerSecond: (WORKGROUPS * WORKGROUP * effort.steps * FLOPS_PER_STEP) / (adds[middle]! / 1e3),
    };
  } finally {
    reading.free();
    adding.free();
    arena.free();
  }
}

/** Streaming reads and float32 multiply-adds of a WebGPU device, medians of five. */
export async function measureWebGpuCeilings(device: Device): Promise<Ceilings> {
  const little = await measureOnce(device, LITTLE);
  return little.bytesPerSecond < GPU_BYTES_PER_SECOND ? little : measureOnce(device, MUCH);
}
