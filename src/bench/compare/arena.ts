import type { Device, DeviceBuffer, KernelSource, Launch } from "../../device/device.ts";
import type { LatentDtype } from "../../kernels/common/latent-cache.ts";
import type { WeightMatrix } from "../../kernels/common/weight.ts";

const CHUNK_BYTES = 65536;

const randomFill: KernelSource = {
  name: "bench.random-fill",
  buffers: ["target"],
  scalars: [
    ["chunkBytes", "i32"],
    ["bytes", "i32"],
    ["form", "i32"],
    ["seed", "i32"],
    ["limit", "f32"],
  ],
  cpu: "benchRandomFill",
};

const fp8Entries: KernelSource = {
  name: "bench.fp8-entries",
  buffers: ["cache"],
  scalars: [
    ["latentWidth", "i32"],
    ["ropeWidth", "i32"],
  ],
  cpu: "benchFp8Entries",
};

/** Allocates the memory of one measurement, fills it on the device, and gives all of it back at once. */
export class CompareArena {
  readonly #device: Device;
  readonly #buffers: DeviceBuffer[] = [];
  #seed = 1;

  constructor(device: Device) {
    this.#device = device;
  }

  /** `bytes` bytes of anything. Throws UserError when the device has no room. */
  reserve(label: string, bytes: number): DeviceBuffer {
    const buffer = this.#device.allocate(bytes, label);
    this.#buffers.push(buffer);
    return buffer;
  }

  /** A buffer that holds `data`. */
  upload(label: string, data: ArrayBufferView): DeviceBuffer {
    const buffer = this.reserve(label, data.byteLength);
    this.#device.write(buffer, data);
    return buffer;
  }

  /** `count` random floats with the standard deviation `deviation`. */
  floats(label: string, count: number, deviation: number): DeviceBuffer {
    const buffer = this.reserve(label, 4 * count);
    this.#fill(buffer, 0, deviation);
    return buffer;
  }

  /** A random bf16 matrix [rows, columns] that keeps the size of what it multiplies. */
  matrix(label: string, rows: number, columns: number): WeightMatrix {
    const buffer = this.reserve(label, 2 * rows * columns);
    this.#fill(buffer, 1, columns ** -0.5);
    return { buffer, dtype: "bf16", rows, columns };
  }

  /** `bytes` bytes of random bf16 cache values. */
  bf16Cache(label: string, bytes: number): DeviceBuffer {
    const buffer = this.reserve(label, bytes);
    this.#fill(buffer, 1, 0.5);
    return buffer;
  }

  /** A random latent cache of `entries` entries of `entryBytes` bytes. */
  latentCache(
    entries: number,
    entryBytes: number,
    dtype: LatentDtype,
    widths: readonly [latentWidth: number, ropeWidth: number],
  ): DeviceBuffer {
    if (dtype !== "fp8") return this.bf16Cache("latent cache", entries * entryBytes);
    const buffer = this.reserve("latent cache", entries * entryBytes);
    this.#fill(buffer, 2, 0);
    this.#run((launch) => launch(fp8Entries, entries, [buffer], [...widths]));
    return buffer;
  }

  #fill(buffer: DeviceBuffer, form: number, deviation: number): void {
    const seed = this.#seed;
    this.#seed = (this.#seed + 7919) % 2 ** 30;
    const scalars = [CHUNK_BYTES, buffer.bytes | 0, form, seed, deviation * Math.sqrt(3)];
    this.#run((launch) => launch(randomFill, Math.ceil(buffer.bytes / CHUNK_BYTES), [buffer], scalars));
  }

  #run(step: (launch: Launch) => void): void {
    const program = this.#device.record(step);
    program.run();
    program.free();
  }

  /** Frees every buffer. */
  free(): void {
    for (const buffer of this.#buffers.splice(0)) buffer.free();
  }
}
