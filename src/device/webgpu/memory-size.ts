import { isSoftware } from "./adapter.ts";

/** Memory that a browser lets one page have of a GPU, in buffers of the largest size. */
const BROWSER_BUFFERS = 4;
const NATIVE_BUFFERS = 16;

/**
 * An estimate of the bytes that buffers can take in all. WebGPU does not tell: a software adapter has the machine's memory, a
 * GPU is taken for a few times its largest buffer. What does not fit after all fails when it is allocated.
 */
export function memoryBytesOf(adapter: GPUAdapter, bufferBytes: number): number {
  if (typeof process === "undefined" || process.versions?.node === undefined) {
    return BROWSER_BUFFERS * bufferBytes;
  }
  if (isSoftware(adapter)) return process.getBuiltinModule("node:os").totalmem();
  return NATIVE_BUFFERS * Math.min(bufferBytes, 2 ** 32);
}
