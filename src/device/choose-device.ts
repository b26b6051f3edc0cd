import { errorMessage, UserError } from "../base/errors.ts";
import type { Device, DeviceKind } from "./device.ts";

/** A device that may be opened. */
export interface DeviceCandidate {
  readonly kind: DeviceKind;
  /** Rejects with the reason why there is none. */
  open(): Promise<Device>;
}

/** What {@link chooseDevice} may be told. */
export interface DeviceChoiceOptions {
  /** Says in a sentence why an opened device will not do, or null; what it rejects with counts as such a sentence if it is a UserError. */
  readonly whyNot?: ((device: Device) => Promise<string | null>) | undefined;
  /** Called for every device that is passed over. */
  readonly onPassedOver?: ((kind: DeviceKind, reason: string) => void) | undefined;
}

async function reasonAgainst(device: Device, whyNot: DeviceChoiceOptions["whyNot"]): Promise<string | null> {
  if (whyNot === undefined) return null;
  try {
    return await whyNot(device);
  } catch (error) {
    if (error instanceof UserError) return error.message;
    await device.close();
    throw error;
  }
}

/**
 * The first of `candidates` that opens and will do; what opened and will not is closed again. Where none will do, rejects with what is said
 * against those that opened, else with the one candidate's failure or, of several, a UserError that has all of them; a wrong argument of the
 * last, which takes what no other did, stays the TypeError or RangeError that it is.
 */
export async function chooseDevice(
  candidates: readonly DeviceCandidate[],
  { whyNot, onPassedOver }: DeviceChoiceOptions = {},
): Promise<Device> {
  const unopened: string[] = [];
  const unsuited: string[] = [];
  for (const { kind, open } of candidates) {
    let device: Device;
    try {
      device = await open();
    } catch (error) {
      const isWrongArgument = error instanceof TypeError || error instanceof RangeError;
      const isLast = kind === candidates.at(-1)?.kind && unsuited.length === 0;
      if (candidates.length === 1 || (isLast && isWrongArgument)) throw error;
      unopened.push(`${kind}: ${errorMessage(error)}`);
      onPassedOver?.(kind, errorMessage(error));
      continue;
    }
    const reason = await reasonAgainst(device, whyNot);
    if (reason === null) return device;
    await device.close();
    unsuited.push(reason);
    onPassedOver?.(kind, reason);
  }
  throw new UserError((unsuited.length > 0 ? unsuited : unopened).join(" "));
}
