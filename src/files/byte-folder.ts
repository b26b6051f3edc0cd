import type { ByteSource } from "./byte-source.ts";
import { fileFolder } from "./file-source.ts";
import { urlFolder } from "./url-folder.ts";

/** Files that are read by position: a folder on disk, behind an address, or picked in a browser. */
export interface ByteFolder {
  /** What messages call it. */
  readonly name: string;
  /** Opens the file at a path inside it, such as `config.json`; undefined when there is no such file. */
  open(file: string): Promise<ByteSource | undefined>;
  /** Names of the files right in the folder `inside`, none when it does not exist; absent where nobody can know. */
  list?(inside: string): Promise<string[]>;
}

/**
 * Where a model's files are: a path (in a browser, an address relative to the page), an http(s) address, or any
 * {@link ByteFolder}, for example that of picked files.
 */
export type FolderLocation = string | URL | ByteFolder;

/** The folder at `location`; nothing is opened yet. */
export function openFolder(location: FolderLocation): ByteFolder {
  if (location instanceof URL) return urlFolder(location);
  if (typeof location !== "string") return location;
  return /^https?:\/\//i.test(location) ? urlFolder(location) : fileFolder(location);
}
