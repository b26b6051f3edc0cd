import { blobSource } from "./blob-folder.ts";
import type { ByteFolder } from "./byte-folder.ts";
import type { HttpOptions } from "./http-file.ts";
import { type FileAppender, type FileStore, type KeptFolderOptions, keptFolder } from "./kept-folder.ts";
import { urlFolder } from "./url-folder.ts";

const root = "flashmla-models";
/** No path of a file begins like that. */
const indexFile = "//index";

/** A file opened for writing in place; only workers can, so TypeScript's library for pages does not know it. */
interface SyncAccessHandle {
  truncate(size: number): void;
  write(bytes: Uint8Array, options: { at: number }): number;
  flush(): void;
  close(): void;
}

type WritableFile = FileSystemFileHandle & { createSyncAccessHandle?: () => Promise<SyncAccessHandle> };

/**
 * The files of a model behind an address (relative to the page), kept in the browser's origin-private file system: a second
 * visit reads them from there, without a network too. Where there is none (an insecure page, some private windows) files are
 * read from the address each time. Throws and rejects as {@link urlFolder} does.
 */
export async function keptUrlFolder(
  address: string | URL,
  options: KeptFolderOptions & HttpOptions = {},
): Promise<ByteFolder> {
  const origin = urlFolder(new URL(address, globalThis.location?.href), options);
  const store = await browserStore(origin.name).catch(() => undefined);
  return store === undefined ? origin : keptFolder(origin, store, options);
}

/** Removes everything that {@link keptUrlFolder} kept; false where there was nothing. */
export async function forgetKeptFiles(): Promise<boolean> {
  const top = await navigator.storage?.getDirectory?.();
  if (top === undefined) return false;
  return top.removeEntry(root, { recursive: true }).then(
    () => true,
    () => false,
  );
}

async function browserStore(name: string): Promise<FileStore | undefined> {
  const top = await globalThis.navigator?.storage?.getDirectory?.();
  if (top === undefined) return undefined;
  const models = await top.getDirectoryHandle(root, { create: true });
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(name)));
  const folder = [...hash.subarray(0, 16)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return new DirectoryStore(await models.getDirectoryHandle(folder, { create: true }));
}

class DirectoryStore implements FileStore {
  readonly #directory: FileSystemDirectoryHandle;

  constructor(directory: FileSystemDirectoryHandle) {
    this.#directory = directory;
  }

  async readIndex(): Promise<string | undefined> {
    return (await this.#file(indexFile))?.text();
  }

  async writeIndex(text: string): Promise<void> {
    const appender = await this.append(indexFile, 0);
    try {
      await appender.write(new TextEncoder().encode(text));
    } finally {
      await appender.close();
    }
  }

  async open(file: string) {
    const blob = await this.#file(file);
    return blob && blobSource(file, blob);
  }

  async #file(file: string): Promise<File | undefined> {
    const handle = await this.#directory.getFileHandle(encodeURIComponent(file)).catch(() => undefined);
    return handle?.getFile();
  }

  async append(file: string, length: number): Promise<FileAppender> {
    const handle: WritableFile = await this.#directory.getFileHandle(encodeURIComponent(file), {
      create: true,
    });
    if (handle.createSyncAccessHandle === undefined) return streamAppender(handle, length);
    const access = await handle.createSyncAccessHandle();
    access.truncate(length);
    let at = length;
    return {
      write: async (bytes) => {
        const written = access.write(bytes, { at });
        at += written;
        if (written < bytes.length) throw new Error("the browser's storage is full");
      },
      close: async () => {
        access.flush();
        access.close();
      },
    };
  }

  async room(): Promise<number> {
    const { quota, usage } = await navigator.storage.estimate();
    return quota === undefined ? Number.POSITIVE_INFINITY : quota - (usage ?? 0);
  }
}

async function streamAppender(handle: FileSystemFileHandle, length: number): Promise<FileAppender> {
  const writer = await handle.createWritable({ keepExistingData: true });
  await writer.truncate(length);
  await writer.seek(length);
  return {
    write: (bytes) => writer.write(bytes as Uint8Array<ArrayBuffer>),
    close: () => writer.close(),
  };
}
