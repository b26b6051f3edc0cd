import type { DeviceBuffer } from "../device.ts";

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

/** Throws RangeError unless `byteOffset`…`byteOffset + bytes` lies in `buffer`. */
export function checkRange(buffer: DeviceBuffer, byteOffset: number, bytes: number): void {
  if (Number.isSafeInteger(byteOffset) && Number.isSafeInteger(bytes) && byteOffset >= 0 && bytes >= 0) {
    if (byteOffset + bytes <= buffer.bytes) return;
  }
  throw new RangeError(
    `${buffer.label}: bytes ${byteOffset}…${byteOffset + bytes} lie outside its ${buffer.bytes} bytes`,
  );
}
