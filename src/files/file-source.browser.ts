import { errorMessage, UserError } from "../base/errors.ts";
import type { ByteFolder } from "./byte-folder.ts";
import type { ByteSource } from "./byte-source.ts";
import { urlFolder } from "./url-folder.ts";

/** The UserError for a failure while `action` was tried on `path`. */
export function fileError(action: string, path: string, error: unknown): UserError {
  return new UserError(`cannot ${action} ${path}: ${errorMessage(error)}`, { cause: error });
}

/** A browser opens no paths: rejects with a UserError that says what to give instead. */
export async function openFileSource(path: string): Promise<ByteSource> {
  throw new UserError(`cannot open ${path}: a browser has no paths; give an address or picked files`);
}

/** The folder at an address relative to the page. */
export function fileFolder(directory: string): ByteFolder {
  return urlFolder(new URL(directory, globalThis.location.href));
}
