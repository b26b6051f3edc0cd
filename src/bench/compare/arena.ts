import { encodeFromF32 } from "../../base/convert.ts";
import { encodeFp8Entry } from "../../base/fp8-entry.ts";
import { createRandom } from "../../base/random.ts";
import type { Device, DeviceBuffer, KernelSource, Launch } from "../../device/device.ts";
import type { LatentDtype } from "../../kernels/common/latent-cache.ts";
import type { WeightMatrix } from "../../kernels/common/weight.ts";
import wgsl from "./random-fill.wgsl.ts";

const CHUNK_BYTES = 65536;
/** Values and entries that are made here and repeated, on devices without a kernel for it. */
const HOST_VALUES = 2 ** 18;
const HOST_ENTRIES = 512;

const randomFill: KernelSource = {
  name: "bench.random-fill",
  buffers: ["target"],
  scalars: [
    ["chunkBytes", "i32"],
    ["vectors", "i32"],
    ["form", "i32"],
    ["seed", "i32"],
    ["limit", "f32"],
  ],
  cpu: "benchRandomFill",
  cuda: { module: "random-fill.fatbin", function: "benchRandomFill", blockSize: 256 },
  webgpu: { code: wgsl },
};

const fp8Entries: KernelSource = {
  name: "bench.fp8-entries",
  buffers: ["cache"],
  scalars: [
    ["latentWidth", "i32"],
    ["ropeWidth", "i32"],
  ],
  cpu: "benchFp8Entries",
  cuda: { module: "random-fill.fatbin", function: "benchFp8Entries", blockSize: 128 },
};

/** Allocates the memory of one measurement, fills it on the device, and gives all of it back at once. */
export class CompareArena {
  readonly #device: Device;
  readonly #buffers: DeviceBuffer[] = [];
  #seed = 1;

  constructor(device: Device) {
    this.#device = device;
  }

  /** The device, as kernels choose their variants by it. */
  get target(): Launch["target"] {
    return this.#device;
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

  /** Fills a buffer that the arena does not own with random bf16 values. */
  fillBf16(buffer: DeviceBuffer, deviation: number): void {
    this.#fill(buffer, 1, deviation);
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
    if (!(this.#device.kind in fp8Entries)) {
      this.#repeat(buffer, this.#hostEntries(Math.min(HOST_ENTRIES, entries), widths));
      return buffer;
    }
    this.#fill(buffer, 2, 0);
    this.#run((launch) => launch(fp8Entries, entries, [buffer], [...widths]));
    return buffer;
  }

  #nextSeed(): number {
    this.#seed = (this.#seed + 7919) % 2 ** 30;
    return this.#seed;
  }

  #hostEntries(count: number, [latentWidth, ropeWidth]: readonly [number, number]): Uint8Array {
    const random = createRandom(this.#nextSeed());
    const entries = Array.from({ length: count }, () =>
      encodeFp8Entry(random.normals(latentWidth, 0.5), random.normals(ropeWidth, 0.5)),
    );
    return Uint8Array.from({ length: count * entries[0]!.length }, (_, i) => {
      const size = entries[0]!.length;
      return entries[Math.floor(i / size)]![i % size]!;
    });
  }

  /** Fills `buffer` with `block`, again and again. */
  #repeat(buffer: DeviceBuffer, block: Uint8Array): void {
    for (let at = 0; at < buffer.bytes; at += block.length) {
      this.#device.write(buffer, block.subarray(0, Math.min(block.length, buffer.bytes - at)), at);
    }
  }

  #fill(buffer: DeviceBuffer, form: number, deviation: number): void {
    const seed = this.#nextSeed();
    if (!(this.#device.kind in randomFill)) {
      const count = Math.min(HOST_VALUES, Math.ceil(buffer.bytes / (form === 0 ? 4 : 2)));
      const values = createRandom(seed).normals(count, deviation);
      this.#repeat(buffer, encodeFromF32(values, form === 0 ? "f32" : "bf16"));
      return;
    }
    const most = this.#device.limits.webgpu?.bindingBytes ?? buffer.bytes;
    const step = most >= buffer.bytes ? buffer.bytes : Math.floor(most / CHUNK_BYTES) * CHUNK_BYTES;
    this.#run((launch) => {
      for (let at = 0; at < buffer.bytes; at += step) {
        const part = buffer.slice(at, Math.min(step, buffer.bytes - at));
        // The seed moves on with the place: what is filled does not depend on the parts.
        const scalars = [CHUNK_BYTES, Math.floor(part.bytes / 16), form, (seed + at / 2) % 2 ** 31];
        launch(
          randomFill,
          Math.ceil(part.bytes / CHUNK_BYTES),
          [part],
          [...scalars, deviation * Math.sqrt(3)],
        );
      }
    });
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
