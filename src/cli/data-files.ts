import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { errorMessage, UserError } from "../base/errors.ts";

/** The GPU data that ships with the package. */
export const shippedGpuFile: string = fileURLToPath(new URL("../../data/gpus.json", import.meta.url));

/**
 * The parsed JSON of the file at `path`. Throws UserError when it cannot be read: `what` names it ("The GPU file"), `advice` says
 * what to give instead.
 */
export function readJsonFile(path: string, what: string, advice: string): unknown {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new UserError(`${what} ${path} cannot be read (${errorMessage(error)}); ${advice}.`, {
      cause: error,
    });
  }
}
