import { UserError } from "../base/errors.ts";
import type { TensorData } from "./safetensors-writer.ts";

export type { TensorData } from "./safetensors-writer.ts";

/** A browser writes no files by path: rejects with a UserError. */
export async function writeSafetensors(
  path: string,
  _tensors: readonly TensorData[],
  _metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  throw new UserError(`cannot write ${path}: a browser has no paths`);
}
