import type { FileHandle } from "node:fs/promises";
import { errorCode, errorMessage, UserError } from "../base/errors.ts";
import type { ByteFolder } from "./byte-folder.ts";
import type { ByteSource } from "./byte-source.ts";
import { endedEarly } from "./byte-source.ts";

/** Most bytes that one system call is asked for; Linux serves no more than 2 GiB − 4096 at once. */
const largestRead = 2 ** 30;

/** The UserError for a failure of the file system while `action` ("open", "read") was tried on `path`. */
export function fileError(action: string, path: string, error: unknown): UserError {
  const reasons: Record<string, string> = {
    ENOENT: "there is no such file",
    EACCES: "you have no permission to",
    EISDIR: "it is a directory",
    ENOTDIR: "a part of its path is not a directory",
    EMFILE: "too many files are open; raise the limit with ulimit -n",
  };
  const reason = reasons[errorCode(error) ?? ""] ?? errorMessage(error);
  return new UserError(`cannot ${action} ${path}: ${reason}`, { cause: error });
}

async function readFully(
  handle: FileHandle,
  path: string,
  offset: number,
  target: Uint8Array,
): Promise<void> {
  let filled = 0;
  while (filled < target.length) {
    const length = Math.min(target.length - filled, largestRead);
    const { bytesRead } = await handle.read(target, filled, length, offset + filled).catch((error) => {
      throw fileError("read", path, error);
    });
    if (bytesRead === 0) throw endedEarly(path, offset, target.length);
    filled += bytesRead;
  }
}

/**
 * Opens the file at `path` for positioned reads (Node only; the module of the file system is loaded here, so that
 * a browser bundle carries none). Rejects with a UserError when there is no such file or it may not be read.
 */
export async function openFileSource(path: string): Promise<ByteSource> {
  const { open } = await import("node:fs/promises");
  const handle = await open(path, "r").catch((error) => {
    throw fileError("open", path, error);
  });
  try {
    const stats = await handle.stat();
    if (!stats.isFile()) throw new UserError(`cannot open ${path}: it is not a file`);
    return {
      name: path,
      size: stats.size,
      read: (offset, target) => readFully(handle, path, offset, target),
      close: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** The folder at the path `directory` (Node only). */
export function fileFolder(directory: string): ByteFolder {
  const root = directory.replace(/(?<=.)\/+$/, "");
  const isAbsent = (error: unknown) => ["ENOENT", "ENOTDIR"].includes(errorCode(error) ?? "");
  return {
    name: root,
    open: (file) =>
      openFileSource(`${root}/${file}`).catch((error: Error) => {
        if (isAbsent(error.cause)) return undefined;
        throw error;
      }),
    list: async (inside) => {
      const { readdir } = await import("node:fs/promises");
      return readdir(`${root}/${inside}`).catch((error: unknown) => {
        if (isAbsent(error)) return [];
        throw fileError("list", `${root}/${inside}`, error);
      });
    },
  };
}
