import type { Device, DeviceBuffer, KernelSource } from "../device/device.ts";

const module = "gpu-ceilings.sm90.cubin";

const fill: KernelSource = {
  name: "bench.fill",
  buffers: ["target"],
  scalars: [
    ["pairs", "i32"],
    ["seed", "i32"],
    ["scale", "f32"],
  ],
  cuda: { module, function: "benchFill", blockSize: 256 },
};

const read: KernelSource = {
  name: "bench.read",
  buffers: ["source", "sink"],
  scalars: [["vectors", "i32"]],
  cuda: { module, function: "benchRead", blockSize: 512 },
};

const multiply: KernelSource = {
  name: "bench.tensor",
  buffers: ["sink"],
  scalars: [["steps", "i32"]],
  cuda: { module, function: "benchTensor", blockSize: 256, sharedBytes: 6 * 64 * 128 },
};

/** Bytes that the read ceiling streams: many times the second-level cache. */
const STREAM_BYTES = 2 ** 32;
const STEPS = 65_536;
/** FLOPs of a step: two warpgroups multiply 64 × 256 × 16. */
const STEP_FLOPS = 2 * 2 * 64 * 256 * 16;

/** What a GPU reaches at most. */
export interface GpuCeilings {
  /** Streaming reads. */
  readonly bytesPerSecond: number;
  /** bf16 tensor cores, operands in shared memory, random values. */
  readonly flopsPerSecond: number;
}

/** Fills `buffer` with bf16 random numbers of standard deviation `scale`. */
export async function fillRandom(device: Device, buffer: DeviceBuffer, seed: number, scale: number) {
  const program = device.record((launch) => launch(fill, 1024, [buffer], [buffer.bytes / 4, seed, scale]));
  program.run();
  await program.idle();
  program.free();
}

/** Milliseconds of `count` runs by the device's clock, sorted. */
export async function timeRuns(program: { time(): Promise<number> }, count: number): Promise<number[]> {
  const times: number[] = [];
  for (let i = 0; i < count; i++) times.push(await program.time());
  return times.sort((a, b) => a - b);
}

/** Milliseconds of work before the first timing: a GPU that had nothing to do runs at a lower clock. */
const WARM_MS = 30;

/** Runs a program until the GPU has worked for a while, twice at least. */
export async function warmUp(program: { time(): Promise<number> }): Promise<void> {
  let milliseconds = await program.time();
  for (let runs = 1; milliseconds < WARM_MS && runs < 100; runs++) milliseconds += await program.time();
  await program.time();
}

/** Measures both ceilings; `pool` is memory to read, with random values in it. */
export async function measureGpuCeilings(device: Device, pool: DeviceBuffer): Promise<GpuCeilings> {
  const bytes = Math.min(STREAM_BYTES, pool.bytes);
  const blocks = device.limits.computeUnits;
  const sink = device.allocate(4, "sink");
  const reading = device.record((launch) => launch(read, blocks * 4, [pool, sink], [bytes / 16]));
  const multiplying = device.record((launch) => launch(multiply, blocks, [sink], [STEPS]));
  try {
    await warmUp(reading);
    const readTimes = await timeRuns(reading, 9);
    await warmUp(multiplying);
    const tensorTimes = await timeRuns(multiplying, 9);
    return {
      bytesPerSecond: bytes / (readTimes[4]! / 1e3),
      flopsPerSecond: (blocks * STEPS * STEP_FLOPS) / (tensorTimes[4]! / 1e3),
    };
  } finally {
    for (const held of [reading, multiplying, sink]) held.free();
  }
}
