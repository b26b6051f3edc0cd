import type { FileHandle } from "node:fs/promises";
import { errorCode, UserError } from "../base/errors.ts";
import { fileError } from "./file-source.ts";

/** Writes all of `data`, however little the system takes at once. */
export async function writeFully(handle: FileHandle, data: ArrayBufferView): Promise<void> {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  for (let written = 0; written < bytes.length; ) {
    const length = Math.min(bytes.length - written, 2 ** 30);
    written += (await handle.write(bytes, written, length)).bytesWritten;
  }
}

/**
 * Runs `write` on a new file beside `path`, then gives it the name `path`, replacing what was there (Node only). Whatever goes
 * wrong, a full disk and an exit of the process included, `path` is as it was and the new file is gone. Rejects with
 * a UserError for failures of the file system.
 */
export async function replaceFile(path: string, write: (handle: FileHandle) => Promise<void>): Promise<void> {
  const [{ open, rename, rm }, { rmSync, statSync }] = await Promise.all([
    import("node:fs/promises"),
    import("node:fs"),
  ]);
  // A rename would put a file in the place of a device such as /dev/null.
  const old = statSync(path, { throwIfNoEntry: false });
  if (old !== undefined && !old.isFile() && !old.isDirectory()) {
    throw new UserError(`cannot write ${path}: it is there and no file; name a file`);
  }
  const temporary = `${path}.${crypto.randomUUID()}.tmp`;
  const removeNow = () => rmSync(temporary, { force: true });
  process.once("exit", removeNow);
  try {
    const handle = await open(temporary, "wx");
    try {
      await write(handle);
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    if (errorCode(error) === undefined) throw error;
    if (errorCode(error) !== "ENOSPC") throw fileError("write", path, error);
    throw new UserError(`cannot write ${path}: the disk is full, nothing was written; free some space`, {
      cause: error,
    });
  } finally {
    process.off("exit", removeNow);
  }
}

/** {@link replaceFile} with `text` as UTF-8; makes the folder that `path` lies in. */
export async function replaceWithText(path: string, text: string): Promise<void> {
  const [{ mkdir }, { dirname }] = await Promise.all([import("node:fs/promises"), import("node:path")]);
  await mkdir(dirname(path), { recursive: true }).catch((error: unknown) => {
    throw fileError("write", path, error);
  });
  await replaceFile(path, (handle) => writeFully(handle, new TextEncoder().encode(text)));
}
