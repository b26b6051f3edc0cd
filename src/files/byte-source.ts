import { UserError } from "../base/errors.ts";

/** Bytes that are read by position: a file, a block of memory, a resource behind ranged requests. */
export interface ByteSource {
  /** What messages call it, a file's path for example. */
  readonly name: string;
  /** Length in bytes. */
  readonly size: number;
  /**
   * Fills the whole of `target` from `offset` on. Reads may overlap in time. Rejects with a UserError when the source
   * ends before `target` is full or cannot be read.
   */
  read(offset: number, target: Uint8Array): Promise<void>;
  /** All bytes from `offset` on in order, in pieces of any size; where that is cheaper than reading one after another. */
  stream?(offset: number): AsyncIterable<Uint8Array>;
  /** What tells one content of that name from another, an entity tag for example; absent where nothing does. */
  readonly version?: string | undefined;
  /** Gives back what the source holds open; reads after it reject. */
  close(): Promise<void>;
}

/** The UserError of a source that ends before the bytes asked of it. */
export function endedEarly(name: string, offset: number, length: number): UserError {
  return new UserError(
    `${name} ends before byte ${offset + length}, which it should hold; the file is truncated, download or export it again`,
  );
}

/** A {@link ByteSource} over `bytes`, which are not copied. */
export function bytesSource(name: string, bytes: Uint8Array): ByteSource {
  return {
    name,
    size: bytes.length,
    read: async (offset, target) => {
      if (offset + target.length > bytes.length) throw endedEarly(name, offset, target.length);
      target.set(bytes.subarray(offset, offset + target.length));
    },
    close: async () => {},
  };
}
