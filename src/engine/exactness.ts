import type { Device } from "../device/device.ts";
import type { ModelConfig } from "../formats/config-types.ts";
import { roundsActivations } from "../models/attention-dtype.ts";

/** What was asked for. */
export interface ExactnessOptions {
  /** Whether activations stay in float32 everywhere; undefined: whatever is fastest here. */
  readonly exact?: boolean | undefined;
  /** Told in a sentence when that is slower than it could be, and why. */
  readonly onNote?: ((sentence: string) => void) | undefined;
}

/**
 * Whether a model's activations stay in float32: as was asked for, else only where what multiplies rounded ones (cuBLASLt on CUDA)
 * is not there, which a note then says.
 */
export function chooseExactness(
  device: Pick<Device, "kind" | "limits">,
  config: ModelConfig,
  { exact, onNote }: ExactnessOptions,
): boolean {
  if (exact !== undefined || !roundsActivations(device, config)) return exact ?? false;
  const problem = device.limits.cublasProblem?.() ?? null;
  if (problem !== null) onNote?.(`Prompts are computed in float32, several times slower: ${problem}`);
  return problem !== null;
}
