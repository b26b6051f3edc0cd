import { accessSync, constants, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { UserError } from "../base/errors.ts";

/** The nearest folder above `path` that is there, or what is there in place of a folder. */
function nearest(path: string): string {
  const folder = dirname(path);
  return folder === path || statSync(folder, { throwIfNoEntry: false }) !== undefined
    ? folder
    : nearest(folder);
}

function check(flag: string, path: string, wanted: "file" | "folder"): void {
  const absolute = resolve(path);
  const stats = statSync(absolute, { throwIfNoEntry: false });
  if (stats !== undefined && !(wanted === "file" ? stats.isFile() : stats.isDirectory())) {
    throw new UserError(`${flag} ${path} is there and no ${wanted}; name another ${wanted}.`);
  }
  const folder = stats !== undefined && wanted === "folder" ? absolute : nearest(absolute);
  if (!statSync(folder).isDirectory()) throw new UserError(`${flag} ${path}: ${folder} is no folder.`);
  try {
    accessSync(folder, constants.W_OK);
  } catch (cause) {
    throw new UserError(`${flag} ${path}: nothing can be written to ${folder}.`, { cause });
  }
}

/**
 * Checks where results will go before they are worked for: `out` is a folder and `html` a file, there or to be made. Throws UserError
 * for a place where nothing could be written.
 */
export function checkPlaces({ out, html }: { readonly out?: string; readonly html?: string }): void {
  try {
    if (out !== undefined) check("--out", out, "folder");
    if (html !== undefined) check("--html", html, "file");
  } catch (cause) {
    if (cause instanceof UserError) throw cause;
    throw new UserError(`${out ?? html} cannot be written: a part of its path is no folder.`, { cause });
  }
}
