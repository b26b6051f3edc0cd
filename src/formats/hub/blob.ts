import type { Hash } from "node:crypto";
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { errorCode, UserError } from "../../base/errors.ts";
import { fileSize } from "./cache.ts";
import { diskError } from "./failures.ts";
import type { StallGuard } from "./stall-guard.ts";
import { startStallGuard } from "./stall-guard.ts";

/** A file of the hub as its listing describes it. */
export interface RemoteFile {
  readonly path: string;
  /** Length in bytes. */
  readonly size: number;
  /** SHA-256 of the content (64 hex digits), or git's SHA-1 of it as a blob (40 hex digits). */
  readonly hash: string;
}

/** How the content of one {@link RemoteFile} comes down. */
export interface BlobDownload {
  readonly file: RemoteFile;
  /** Where the content belongs; it appears there only when it is whole and its hash is right. */
  readonly target: string;
  /** Asks for the content from byte `start` on. */
  readonly fetchFrom: (start: number, signal: AbortSignal) => Promise<ReadableStream<Uint8Array>>;
  /** Called whenever more is on disk. */
  readonly onBytes: (loaded: number) => void;
  /** The error to end with when asking failed at `loaded` bytes. */
  readonly explain: (error: unknown, loaded: number) => UserError;
  /** How long no byte may come. */
  readonly stallSeconds: number;
  readonly signal: AbortSignal | undefined;
}

/** What is on disk of the content, and the hash of it so far. */
interface PartialContent {
  readonly handle: FileHandle;
  readonly hash: Hash;
  position: number;
}

type Outcome =
  | { readonly state: "whole" }
  | { readonly state: "wrong content" }
  | {
      readonly state: "broken off";
      readonly error: unknown;
      readonly gained: number;
      readonly position: number;
    };

/** Hashes what an earlier attempt left in `handle`. */
async function readBack(handle: FileHandle, { hash: expected, size }: RemoteFile): Promise<PartialContent> {
  const hash = expected.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
  const partial: PartialContent = { handle, hash, position: 0 };
  for await (const chunk of handle.createReadStream({ start: 0, autoClose: false })) {
    hash.update(chunk as Buffer);
    partial.position += (chunk as Buffer).length;
  }
  return partial;
}

/**
 * Writes by position, not by appending: another process that fetches the same content at the same time then puts
 * the same bytes in the same places.
 */
async function append(partial: PartialContent, chunk: Uint8Array, path: string): Promise<void> {
  for (let written = 0; written < chunk.length; ) {
    const { bytesWritten } = await partial.handle
      .write(chunk, written, chunk.length - written, partial.position + written)
      .catch((error) => {
        throw diskError(path, error);
      });
    written += bytesWritten;
  }
  partial.hash.update(chunk);
  partial.position += chunk.length;
}

/** Adds what the hub sends; returns early when it sends more than the file holds. */
async function receive(partial: PartialContent, download: BlobDownload, guard: StallGuard): Promise<void> {
  const { file, fetchFrom, onBytes, target } = download;
  const stream = await fetchFrom(partial.position, guard.signal);
  for await (const chunk of stream) {
    guard.touch();
    await append(partial, chunk, target);
    if (partial.position > file.size) return;
    onBytes(partial.position);
  }
  if (partial.position < file.size) throw new Error("the connection was closed");
}

async function attempt(handle: FileHandle, download: BlobDownload): Promise<Outcome> {
  const { file, onBytes, stallSeconds, signal } = download;
  const partial = await readBack(handle, file);
  const start = partial.position;
  onBytes(Math.min(start, file.size));
  const guard = startStallGuard(stallSeconds, signal);
  try {
    if (start < file.size) await receive(partial, download, guard);
  } catch (error) {
    if (error instanceof UserError) throw error;
    return { state: "broken off", error, gained: partial.position - start, position: partial.position };
  } finally {
    guard.stop();
  }
  const right = partial.position === file.size && partial.hash.digest("hex") === file.hash;
  return { state: right ? "whole" : "wrong content" };
}

async function tryOnce(path: string, download: BlobDownload): Promise<Outcome> {
  const handle = await open(path, constants.O_RDWR | constants.O_CREAT).catch((error) => {
    throw diskError(path, error);
  });
  try {
    return await attempt(handle, download);
  } catch (error) {
    if (error instanceof UserError && errorCode(error.cause) === "ENOSPC") await rm(path, { force: true });
    throw error;
  } finally {
    await handle.close();
  }
}

async function moveIntoPlace(path: string, target: string): Promise<void> {
  await rename(path, target).catch(async (error) => {
    if ((await fileSize(target)) === undefined) throw diskError(target, error);
  });
}

/**
 * Brings the content of one file down into `target`, through `target`.incomplete: what an earlier call left there is
 * taken up again, a broken connection is taken up again as long as bytes come, and content whose hash is wrong is
 * fetched anew once. Rejects with a UserError when that does not help, when the hub refuses or when the disk fails.
 */
export async function downloadBlob(download: BlobDownload): Promise<void> {
  const { file, target, explain, signal } = download;
  const path = `${target}.incomplete`;
  await mkdir(dirname(target), { recursive: true }).catch((error) => {
    throw diskError(target, error);
  });
  let wrong = 0;
  for (;;) {
    const outcome = await tryOnce(path, download);
    if (outcome.state === "whole") return await moveIntoPlace(path, target);
    if (outcome.state === "broken off") {
      signal?.throwIfAborted();
      if (outcome.gained > 0) continue;
      if ((await fileSize(path)) === 0) await rm(path, { force: true });
      throw explain(outcome.error, outcome.position);
    }
    await rm(path, { force: true });
    if (++wrong === 2) {
      throw new UserError(`the content of ${file.path} that came does not match its hash; try again later`);
    }
  }
}
