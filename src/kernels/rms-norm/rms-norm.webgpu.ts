import type { WebGpuEntry } from "../../device/device.ts";
import code from "./rms-norm.wgsl.ts";

/** Rows as workgroups of 256. */
export const rmsNormWebGpu: WebGpuEntry = { code, constants: { WORKGROUP: 256 } };
