import { UserError } from "../base/errors.ts";
import type { ByteFolder } from "./byte-folder.ts";
import type { ByteSource } from "./byte-source.ts";

/** A place that keeps the files of one folder between visits. */
export interface FileStore {
  /** The text that `writeIndex` left; undefined at first. */
  readIndex(): Promise<string | undefined>;
  writeIndex(text: string): Promise<void>;
  /** Opens what is kept of a file so far; undefined when there is nothing. */
  open(file: string): Promise<ByteSource | undefined>;
  /** Adds bytes to a file after cutting it to `length`; one writer at a time. */
  append(file: string, length: number): Promise<FileAppender>;
  /** Bytes that may still be kept. */
  room(): Promise<number>;
}

/** Adds bytes to the end of a kept file. */
export interface FileAppender {
  write(bytes: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** Bytes of `file` that have come so far, and in all. */
export type FetchProgress = (file: string, fetchedBytes: number, totalBytes: number) => void;

/** How {@link keptFolder} goes about it. */
export interface KeptFolderOptions {
  readonly onProgress?: FetchProgress | undefined;
  /** Called when a file is read from afar because it cannot be kept, with the reason. */
  readonly onNotKept?: ((file: string, reason: string) => void) | undefined;
  /** Milliseconds that the origin has to say that what is kept is current; default 4000. */
  readonly patienceMs?: number | undefined;
}

/** What the index says of a file; null for one that the folder does not have. */
type Kept = { readonly size: number; readonly version: string | null; readonly whole: boolean } | null;

const pieceBytes = 4 * 2 ** 20;

/**
 * The files of `origin`, each kept in `store` when it is first opened, and read from there afterwards: as long as the origin
 * still has the same size and version, and whenever the origin does not answer. A download that broke off goes on where
 * it stopped. Files that cannot be kept are read from the origin. `open` rejects as the origin's does.
 */
export function keptFolder(
  origin: ByteFolder,
  store: FileStore,
  options: KeptFolderOptions = {},
): ByteFolder {
  let pending: Promise<KeptIndex> | undefined;
  const index = () => {
    pending ??= KeptIndex.read(store);
    return pending;
  };
  // A file that is asked for twice at once is fetched once.
  const turns = new Map<string, Promise<unknown>>();
  return {
    name: origin.name,
    open: async (file) => {
      const kept = new KeptFile(file, origin, store, await index(), options);
      const opened = (turns.get(file) ?? Promise.resolve()).then(() => kept.open());
      turns.set(
        file,
        opened.catch(() => {}),
      );
      return opened;
    },
  };
}

/** What is kept of every file; it is written after each change, one write at a time. */
class KeptIndex {
  readonly #store: FileStore;
  readonly #files: Map<string, Kept>;
  #writing: Promise<void> = Promise.resolve();

  private constructor(store: FileStore, files: Map<string, Kept>) {
    this.#store = store;
    this.#files = files;
  }

  static async read(store: FileStore): Promise<KeptIndex> {
    try {
      return new KeptIndex(store, new Map(Object.entries(JSON.parse((await store.readIndex()) ?? "{}"))));
    } catch {
      return new KeptIndex(store, new Map());
    }
  }

  get(file: string): Kept | undefined {
    return this.#files.get(file);
  }

  set(file: string, kept: Kept): Promise<void> {
    this.#files.set(file, kept);
    const write = () => this.#store.writeIndex(JSON.stringify(Object.fromEntries(this.#files)));
    const written = this.#writing.then(write);
    this.#writing = written.catch(() => {});
    return written;
  }
}

class KeptFile {
  constructor(
    readonly file: string,
    readonly origin: ByteFolder,
    readonly store: FileStore,
    readonly index: KeptIndex,
    readonly options: KeptFolderOptions,
  ) {}

  async open(): Promise<ByteSource | undefined> {
    const { file, index } = this;
    const kept = index.get(file);
    if (kept === undefined || (kept !== null && !kept.whole))
      return this.#refresh(await this.origin.open(file));
    const copy = kept === null ? undefined : await this.#whole(kept.size);
    if (kept !== null && copy === undefined) return this.#refresh(await this.origin.open(file));
    const current = await this.#ask();
    if (current === "silent") return copy;
    if (current !== undefined && sameContent(kept, current)) {
      await current.close();
      return copy;
    }
    if (current === undefined && kept === null) return undefined;
    await copy?.close();
    return this.#refresh(current);
  }

  /** What the origin has now, or that it does not answer in time. */
  async #ask(): Promise<ByteSource | undefined | "silent"> {
    const { patienceMs = 4000 } = this.options;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const patience = new Promise<"silent">((resolve) => {
      timer = setTimeout(() => resolve("silent"), patienceMs);
    });
    const answer = this.origin.open(this.file).catch(() => "silent" as const);
    return Promise.race([answer, patience]).finally(() => clearTimeout(timer));
  }

  async #whole(size: number): Promise<ByteSource | undefined> {
    const copy = await this.store.open(this.file).catch(() => undefined);
    if (copy?.size === size) return copy;
    await copy?.close();
    return undefined;
  }

  /** Keeps what the origin has and opens the copy; the origin's own where it cannot be kept. */
  async #refresh(source: ByteSource | undefined): Promise<ByteSource | undefined> {
    if (source === undefined) {
      await this.index.set(this.file, null).catch(() => {});
      return undefined;
    }
    try {
      await this.#download(source);
      const copy = await this.#whole(source.size);
      if (copy === undefined) throw new Error("the copy is not whole");
      await source.close();
      return copy;
    } catch (error) {
      // The origin's own failures are sentences already; whatever else fails is the store.
      if (error instanceof UserError) throw error;
      if (error instanceof DOMException && error.name === "AbortError") throw error;
      this.options.onNotKept?.(this.file, error instanceof Error ? error.message : String(error));
      return source;
    }
  }

  async #download(source: ByteSource): Promise<void> {
    const { file, index, store, options } = this;
    const { size } = source;
    const version = source.version ?? null;
    const begun = index.get(file);
    const isSame = begun != null && version !== null && sameContent(begun, source);
    let position = isSame ? Math.min(size, (await lengthOf(store, file)) ?? 0) : 0;
    const room = await store.room();
    if (size - position > room)
      throw new Error(`there is room for ${room} bytes and it needs ${size - position}`);
    await index.set(file, { size, version, whole: false });
    const appender = await store.append(file, position);
    try {
      for await (const piece of source.stream?.(position) ?? readPieces(source, position)) {
        await appender.write(piece);
        position += piece.length;
        options.onProgress?.(file, position, size);
      }
    } finally {
      await appender.close();
    }
    await index.set(file, { size, version, whole: true });
  }
}

function sameContent(kept: Kept | undefined, { size, version }: ByteSource): boolean {
  return kept != null && kept.size === size && kept.version === (version ?? null);
}

async function lengthOf(store: FileStore, file: string): Promise<number | undefined> {
  const source = await store.open(file);
  await source?.close();
  return source?.size;
}

async function* readPieces(source: ByteSource, offset: number): AsyncGenerator<Uint8Array> {
  for (let position = offset; position < source.size; position += pieceBytes) {
    const piece = new Uint8Array(Math.min(pieceBytes, source.size - position));
    await source.read(position, piece);
    yield piece;
  }
}
