import { encodeFromF32, type FloatDType } from "../base/convert.ts";
import { bytesPerElement } from "../base/dtypes.ts";
import { createRandom } from "../base/random.ts";
import type { Device, DeviceBuffer, Launch } from "../device/device.ts";

/** One operation at one shape. */
export interface BenchCase {
  /** The operation's folder, then its shape: what `--case` looks into. */
  readonly name: string;
  /** FLOPs and bytes of one call, from the operation's cost formula. */
  readonly cost: { readonly flops: number; readonly bytes: number };
  /** Largest error against the float64 reference that passes, relative to max(1, |expected|). */
  readonly tolerance: number;
  /** Makes the buffers of `copies` independent calls, all with the same values. */
  prepare(memory: BenchMemory, copies: number): PreparedCase;
}

/** A case's buffers on one device. */
export interface PreparedCase {
  /** Enqueues call `copy`. */
  enqueue(launch: Launch, copy: number): void;
  /** Largest error of a sample of the results of call 0, relative to max(1, |expected|); NaN where they are NaN. */
  worstError(): Promise<number>;
}

/** Allocates on a device and gives everything back at once. */
export class BenchMemory {
  readonly device: Device;
  readonly #buffers: DeviceBuffer[] = [];

  constructor(device: Device) {
    this.device = device;
  }

  /** `bytes` bytes, zeroed. */
  allocate(bytes: number, label: string): DeviceBuffer {
    return this.upload(new Uint8Array(bytes), label);
  }

  /** A buffer that holds `data`. */
  upload(data: ArrayBufferView, label: string): DeviceBuffer {
    const buffer = this.device.allocate(data.byteLength, label);
    this.#buffers.push(buffer);
    this.device.write(buffer, data);
    return buffer;
  }

  /** `copies` buffers that hold `data`. */
  uploadCopies(data: ArrayBufferView, copies: number, label: string): DeviceBuffer[] {
    return Array.from({ length: copies }, () => this.upload(data, label));
  }

  /** The first `length` floats of a buffer. */
  async readFloats(buffer: DeviceBuffer, length: number): Promise<Float32Array> {
    return new Float32Array(await this.device.read(buffer, 0, 4 * length));
  }

  /** Frees every buffer. */
  free(): void {
    for (const buffer of this.#buffers.splice(0)) buffer.free();
  }
}

/** Different random numbers before they repeat: their making would take longer than the measurement. */
const PERIOD = 99_991;

/** Fills `items` with `period`, again and again. */
function repeat<Items extends Float32Array | Uint8Array>(items: Items, period: Items): Items {
  for (let at = 0; at < items.length; at += period.length) {
    items.set(period.subarray(0, Math.min(period.length, items.length - at)), at);
  }
  return items;
}

/** `length` normal numbers times `scale`, seeded; a short sequence again and again. */
export function normals(length: number, seed: number, scale = 1): Float32Array {
  return repeat(new Float32Array(length), createRandom(seed).normals(Math.min(length, PERIOD), scale));
}

/** {@link normals} as stored in `dtype`. */
export function storedNormals(length: number, seed: number, scale: number, dtype: FloatDType): Uint8Array {
  const period = encodeFromF32(normals(Math.min(length, PERIOD), seed, scale), dtype);
  return repeat(new Uint8Array(length * bytesPerElement(dtype)), period);
}

/** Largest |actual − expected| / max(1, |expected|); NaN when a value is NaN. */
export function worstErrorOf(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(actual[i]! - expected[i]!) / Math.max(1, Math.abs(expected[i]!));
    if (!(error <= worst)) worst = error;
    if (Number.isNaN(worst)) return worst;
  }
  return worst;
}

/**
 * Whether a case's name has every word of `filter`: sizes such as `b=1` as they are, so that b=16 is another, other words as parts of the
 * name.
 */
export function matchesWords(name: string, filter: string): boolean {
  const parts = name.split(" ");
  return filter
    .split(/\s+/)
    .every((word) => (word.includes("=") ? parts.includes(word) : name.includes(word)));
}
