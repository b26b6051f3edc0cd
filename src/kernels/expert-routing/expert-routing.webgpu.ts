import { checkInteger } from "../../base/checks.ts";
import { ceilDivide } from "../../base/integers.ts";
import type { WebGpuEntry } from "../../device/device.ts";
import type { RouterConfig } from "../../formats/config-types.ts";
import code from "./expert-routing.wgsl.ts";

const WORKGROUP = 128;
/** So many that scores and values of a row fit the workgroup memory that every adapter has. */
const MOST_EXPERTS = 1024;

/**
 * Rows as workgroups. Throws RangeError for more than 1024 experts, and for more than 128 groups where they are selected by: no
 * model has that many.
 */
export function expertRoutingWebGpu(args: { experts: number; router: RouterConfig }): WebGpuEntry {
  checkInteger("experts", args.experts, { min: 1, max: MOST_EXPERTS });
  if (args.router.selection !== "greedy")
    checkInteger("router.groups", args.router.groups, { min: 1, max: WORKGROUP });
  return { code, constants: { WORKGROUP, EXPERTS: ceilDivide(args.experts, 64) * 64 } };
}
