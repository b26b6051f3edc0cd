import type { DeviceBuffer } from "../device.ts";
import { checkRange } from "../launch-checks.ts";

/** What a buffer needs of its device. */
export interface BufferOwner {
  release(buffer: CudaBuffer): void;
}

/** A range of GPU memory. */
export class CudaBuffer implements DeviceBuffer {
  constructor(
    readonly device: BufferOwner,
    /** CUdeviceptr. */
    readonly address: bigint,
    readonly bytes: number,
    readonly label: string,
    /** Whether this is the allocation itself and no slice of one. */
    readonly owner: boolean,
  ) {}

  slice(byteOffset: number, bytes: number): CudaBuffer {
    checkRange(this, byteOffset, bytes);
    return new CudaBuffer(this.device, this.address + BigInt(byteOffset), bytes, this.label, false);
  }

  free(): void {
    if (this.owner) this.device.release(this);
  }
}
