import { UserError } from "../../../base/errors.ts";
import type { Device, DeviceBuffer, Launch } from "../../../device/device.ts";
import type { WeightMatrix } from "../weight.ts";
import type { StoredMatrix } from "./stored.ts";

/**
 * Memory of one case on a device that was opened with `poison`: every byte that a case does not fill is 0xff, a NaN in every
 * float format, so that whatever reads it shows.
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
    return buffer;
  }

  /** `data`, and poison after it up to `bytes` bytes (as many as `data` has when not given). */
  upload(label: string, data: ArrayBufferView, bytes = data.byteLength): DeviceBuffer {
    const buffer = this.reserve(label, Math.max(bytes, 4));
    this.device.write(buffer, data);
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

  /**
   * Records the launches of `step`, runs them once and waits for the end. Throws UserError for a kernel that has no entry for this
   * kind of device.
   */
  async run(step: (launch: Launch) => void): Promise<void> {
    const program = this.device.record((launch) => {
      const { kind } = launch.target;
      const checked = (...args: Parameters<Launch>) => {
        const [source] = args;
        const isThere = kind in source || (kind === "cuda" && "cublas" in source);
        if (!isThere) throw new UserError(`${source.name} has no ${kind} kernel yet.`);
        launch(...args);
      };
      step(Object.assign(checked, { target: launch.target }));
    });
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
}
