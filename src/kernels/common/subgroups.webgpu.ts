import type { DeviceLimits } from "../../device/device.ts";

/** Subgroups larger than this are as good as none. */
const MOST = 128;

/** The size that subgroups have here, where it is always the same; 0 where it varies or there are none. */
export function fixedSubgroup({ features, webgpu }: DeviceLimits): number {
  const [least, most] = webgpu?.subgroupSizes ?? [0, 0];
  return features.has("subgroups") && least === most && least >= 4 && least <= MOST ? least : 0;
}
