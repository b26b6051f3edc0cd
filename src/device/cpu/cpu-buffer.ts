import type { DeviceBuffer } from "../device.ts";
import { checkRange } from "../launch-checks.ts";

/** What a buffer needs of its device. */
export interface BufferOwner {
  release(address: number): void;
}

/** A range of the device's memory. */
export class CpuBuffer implements DeviceBuffer {
  constructor(
    readonly device: BufferOwner,
    readonly address: number,
    readonly bytes: number,
    readonly label: string,
    /** Whether this is the allocation itself and no slice of one. */
    readonly owner: boolean,
  ) {}

  slice(byteOffset: number, bytes: number): CpuBuffer {
    checkRange(this, byteOffset, bytes);
    return new CpuBuffer(this.device, this.address + byteOffset, bytes, this.label, false);
  }

  free(): void {
    if (this.owner) this.device.release(this.address);
  }
}
