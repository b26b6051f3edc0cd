import type { Device, DeviceBuffer, Launch } from "../../../device/device.ts";
import type { WeightMatrix } from "../weight.ts";
import type { StoredMatrix } from "./stored.ts";

const poison = new Uint8Array(2 ** 20).fill(0xff);

/** The bits of a float32 that was never written: NaN. */
export const POISON_BITS = 0xffffffff;

/**
 * Memory of one case on one device. Every byte that a case does not fill is 0xff, a NaN in every float format, so that
 * whatever reads it shows.
 */
export class CaseMemory {
  readonly device: Device;
  readonly #buffers: DeviceBuffer[] = [];

  constructor(device: Device) {
    this.device = device;
  }

  /** `bytes` bytes of poison. Throws UserError when the device has no room. */
  reserve(label: string, bytes: number): DeviceBuffer {
    const buffer = this.device.allocate(bytes, label);
    this.#buffers.push(buffer);
    this.#poison(buffer, 0);
    return buffer;
  }

  /** `data`, and poison after it up to `bytes` bytes (as many as `data` has when not given). */
  upload(label: string, data: ArrayBufferView, bytes = data.byteLength): DeviceBuffer {
    const buffer = this.device.allocate(Math.max(bytes, 4), label);
    this.#buffers.push(buffer);
    this.device.write(buffer, data);
    this.#poison(buffer, data.byteLength);
    return buffer;
  }

  /** A weight matrix as the kernels take it. */
  uploadMatrix(label: string, matrix: StoredMatrix): WeightMatrix {
    const { dtype, rows, columns } = matrix;
    return { buffer: this.upload(label, matrix.bytes), dtype, rows, columns };
  }

  /** A row or batch count: i32 [1]. */
  uploadCount(label: string, count: number): DeviceBuffer {
    return this.upload(label, new Int32Array([count]));
  }

  /** Records the launches of `step`, runs them once and waits for the end. */
  async run(step: (launch: Launch) => void): Promise<void> {
    const program = this.device.record(step);
    try {
      program.run();
      await program.idle();
    } finally {
      program.free();
    }
  }

  /** The whole buffer as float32. */
  async readFloats(buffer: DeviceBuffer): Promise<Float32Array> {
    return new Float32Array(await this.device.read(buffer, 0, buffer.bytes));
  }

  /** Gives every buffer back. */
  free(): void {
    for (const buffer of this.#buffers.splice(0)) buffer.free();
  }

  #poison(buffer: DeviceBuffer, from: number): void {
    for (let at = from; at < buffer.bytes; at += poison.length) {
      this.device.write(buffer, poison.subarray(0, buffer.bytes - at), at);
    }
  }
}
