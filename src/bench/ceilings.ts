import type { Device, KernelSource } from "../device/device.ts";

const read: KernelSource = {
  name: "bench.read",
  buffers: ["source", "sums"],
  scalars: [["chunkBytes", "i32"]],
  cpu: "benchRead",
};

const multiplyAdd: KernelSource = {
  name: "bench.multiply-add",
  buffers: ["sums"],
  scalars: [["steps", "i32"]],
  cpu: "benchMultiplyAdd",
};

/** What all threads of a device reach together. */
export interface Ceilings {
  /** Bytes read per second from memory, streaming. */
  readonly bytesPerSecond: number;
  /** Float32 multiply-adds per second, times 2, operands in registers or the first-level cache. */
  readonly flopsPerSecond: number;
}

/** Bytes streamed: several times the last-level cache of the machines this runs on. */
const STREAM_BYTES = 128 * 2 ** 20;
const CHUNK_BYTES = 2 ** 18;
const ITEMS = 256;
const STEPS = 8000;
const FLOPS_PER_STEP = 64;

/** Seconds that `work` takes. */
export function secondsOf(work: () => void): number {
  const start = performance.now();
  work();
  return (performance.now() - start) / 1000;
}

/** Measures the ceilings of one device. */
export interface CeilingMeter {
  /** Measures both once: about 20 ms. */
  measure(): Ceilings;
  /** Gives the memory back. */
  free(): void;
}

/** Allocates what the measurements need. */
export function createCeilingMeter(device: Device): CeilingMeter {
  const chunks = STREAM_BYTES / CHUNK_BYTES;
  const source = device.allocate(STREAM_BYTES, "read ceiling");
  // Untouched memory is one page of zeros that never leaves the cache.
  const data = new Uint8Array(CHUNK_BYTES).fill(1);
  for (let chunk = 0; chunk < chunks; chunk++) device.write(source, data, chunk * CHUNK_BYTES);
  const sums = device.allocate(16 * Math.max(chunks, ITEMS), "ceiling sums");
  const reading = device.record((launch) => launch(read, chunks, [source, sums], [CHUNK_BYTES]));
  const adding = device.record((launch) => launch(multiplyAdd, ITEMS, [sums], [STEPS]));
  return {
    measure: () => ({
      bytesPerSecond: STREAM_BYTES / secondsOf(() => reading.run()),
      flopsPerSecond: (ITEMS * STEPS * FLOPS_PER_STEP) / secondsOf(() => adding.run()),
    }),
    free() {
      for (const held of [reading, adding, source, sums]) held.free();
    },
  };
}
