import type { WebGpuEntry } from "../../device/device.ts";
import code from "./sampling.wgsl.ts";

/** Rows as workgroups of 256. */
export const samplingWebGpu: WebGpuEntry = { code, constants: { WORKGROUP: 256 } };
