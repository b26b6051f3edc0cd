import type { DeviceBuffer } from "../device.ts";

/** What a buffer needs of its device. */
export interface BufferOwner {
  release(buffer: WebGpuBuffer): void;
}

/** A range of a GPUBuffer. */
export class WebGpuBuffer implements DeviceBuffer {
  constructor(
    readonly device: BufferOwner,
    readonly gpu: GPUBuffer,
    readonly byteOffset: number,
    readonly bytes: number,
    readonly label: string,
    /** Whether this is the allocation itself and no slice of one. */
    readonly owner: boolean,
  ) {}

  slice(byteOffset: number, bytes: number): WebGpuBuffer {
    checkRange(this, byteOffset, bytes);
    return new WebGpuBuffer(this.device, this.gpu, this.byteOffset + byteOffset, bytes, this.label, false);
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

/** Whether two ranges share a byte. */
export function overlap(a: WebGpuBuffer, b: WebGpuBuffer): boolean {
  return a.gpu === b.gpu && a.byteOffset < b.byteOffset + b.bytes && b.byteOffset < a.byteOffset + a.bytes;
}
