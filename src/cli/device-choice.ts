import { UserError } from "../base/errors.ts";
import type { Device } from "../device/device.ts";
import { forcedDevice, openDevice } from "../device/open.ts";
import type { ModelFlags } from "./model-flags.ts";

/** A device with a line that says which it is and why; null where a flag names it. */
export interface ChosenDevice {
  readonly device: Device;
  readonly line: string | null;
}

/** What a reason says first: remedies and details are for `flashmla devices`. */
const firstWords = (reason: string) => reason.split(/ \(|; |\.$/)[0]!;

function why(passedOver: readonly string[]): string {
  if (forcedDevice() !== undefined) return " (FLASHMLA_DEVICE)";
  return passedOver.length === 0 ? "" : ` (${passedOver.join("; ")})`;
}

/**
 * Opens the device that the flags ask for, or the best one here that `whyNot` says nothing against. Throws as `openDevice`
 * does, and UserError for features to disable of a device that has none.
 */
export async function openFlaggedDevice(
  {
    device: kind,
    threads,
    disableFeature: disableFeatures = [],
  }: Pick<ModelFlags, "device" | "threads" | "disableFeature">,
  whyNot?: (device: Device) => Promise<string | null>,
): Promise<ChosenDevice> {
  if (disableFeatures.length > 0 && forcedDevice(kind) !== "webgpu") {
    throw new UserError("--disable-feature is for the WebGPU device; ask for that with --device webgpu.");
  }
  const passedOver: string[] = [];
  const device = await openDevice({
    ...{ kind, disableFeatures, whyNot, ...(threads === undefined ? {} : { threads }) },
    onPassedOver: (other, reason) => passedOver.push(`${other}: ${firstWords(reason)}`),
  });
  const line = kind === undefined ? `${device.kind}: ${device.name}${why(passedOver)}` : null;
  return { device, line };
}
