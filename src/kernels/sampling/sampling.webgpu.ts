import type { Launch, WebGpuEntry } from "../../device/device.ts";
import { fixedSubgroup } from "../common/subgroups.webgpu.ts";
import code from "./sampling.wgsl.ts";

/** Workgroup memory of the wide variant, in bytes. */
const WIDE_BYTES = 20 * 1024;

/** Rows as workgroups: of 1024 where the adapter has room for that, else of 256. */
export function samplingWebGpu({ limits }: Launch["target"]): WebGpuEntry {
  const { invocations, workgroupBytes } = limits.webgpu!;
  const isWide = invocations >= 1024 && workgroupBytes >= WIDE_BYTES;
  const SUBGROUP = fixedSubgroup(limits);
  const SUBGROUPS = SUBGROUP > 0;
  return {
    code,
    constants: { WORKGROUP: isWide ? 1024 : 256, SUBGROUPS, SUBGROUP },
    enables: SUBGROUPS ? ["subgroups"] : [],
  };
}
