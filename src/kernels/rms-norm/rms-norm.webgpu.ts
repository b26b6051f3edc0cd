import type { Launch, WebGpuEntry } from "../../device/device.ts";
import { fixedSubgroup } from "../common/subgroups.webgpu.ts";
import code from "./rms-norm.wgsl.ts";

/** Rows as workgroups of 256. */
export function rmsNormWebGpu({ limits }: Launch["target"], HALF: boolean): WebGpuEntry {
  const SUBGROUP = fixedSubgroup(limits);
  const SUBGROUPS = SUBGROUP > 0;
  return {
    code,
    constants: { WORKGROUP: 256, HALF, SUBGROUPS, SUBGROUP },
    enables: SUBGROUPS ? ["subgroups"] : [],
  };
}
