import type { DeviceBuffer } from "../device.ts";
import { checkRange } from "../launch-checks.ts";

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

/** Whether two ranges share a byte. */
export function overlap(a: WebGpuBuffer, b: WebGpuBuffer): boolean {
  return a.gpu === b.gpu && a.byteOffset < b.byteOffset + b.bytes && b.byteOffset < a.byteOffset + a.bytes;
}
