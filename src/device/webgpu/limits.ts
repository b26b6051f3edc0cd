import type { DeviceLimits } from "../device.ts";
import { isSoftware } from "./adapter.ts";

/** Memory that a browser lets one page have of a GPU, in buffers of the largest size. */
const BROWSER_BUFFERS = 4;
const NATIVE_BUFFERS = 16;

/**
 * An estimate of the bytes that buffers can take in all. WebGPU does not tell: a software adapter has the machine's memory, a
 * GPU is taken for a few times its largest buffer. What does not fit after all fails when it is allocated.
 */
function memoryBytesOf(adapter: GPUAdapter, bufferBytes: number): number {
  if (typeof process === "undefined" || process.versions?.node === undefined) {
    return BROWSER_BUFFERS * bufferBytes;
  }
  if (isSoftware(adapter)) return process.getBuiltinModule("node:os").totalmem();
  return NATIVE_BUFFERS * Math.min(bufferBytes, 2 ** 32);
}

/** What kernels and models ask of a device; `memoryBytes` in place of the estimate where given. */
export function limitsOf(
  { limits }: GPUDevice,
  adapter: GPUAdapter,
  features: ReadonlySet<string>,
  memoryBytes: number | undefined,
): DeviceLimits {
  const { subgroupMinSize = 0, subgroupMaxSize = 0 } = adapter.info;
  return {
    memoryBytes: memoryBytes ?? memoryBytesOf(adapter, limits.maxBufferSize),
    computeUnits: 1,
    features,
    webgpu: {
      workgroupBytes: limits.maxComputeWorkgroupStorageSize,
      invocations: limits.maxComputeInvocationsPerWorkgroup,
      storageBuffers: limits.maxStorageBuffersPerShaderStage,
      bindingBytes: limits.maxStorageBufferBindingSize,
      bufferBytes: limits.maxBufferSize,
      subgroupSizes: features.has("subgroups") ? [subgroupMinSize, subgroupMaxSize] : [0, 0],
    },
  };
}
