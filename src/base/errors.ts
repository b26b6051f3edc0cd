/**
 * A failure that the user of a model or of the command line can act on: a corrupt file, an unsupported model,
 * a missing driver. Its message is one sentence that says what is wrong and what to do; the command line prints
 * the message alone and exits with code 1. `cause` holds the error underneath, where there is one.
 */
export class UserError extends Error {
  override readonly name = "UserError";
}

/** A device went away: its driver was reset or updated, or the system took it. What it held is gone; another one may open. */
export class DeviceLostError extends UserError {}

/** The `code` of a Node system error ("ENOENT", "ENOSPC", "ECONNRESET" …), or undefined when `error` has none. */
export function errorCode(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

/** The message of whatever was thrown, for building a sentence around it. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
