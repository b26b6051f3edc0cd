import { checkInteger } from "../base/checks.ts";
import { UserError } from "../base/errors.ts";
import type { ByteSource } from "../files/byte-source.ts";
import type { SafetensorsHeader, TensorInfo } from "./safetensors-header.ts";
import { invalidSafetensors, largestHeader, parseSafetensorsHeader } from "./safetensors-header.ts";

/** Takes a part of a tensor: `chunk` holds its bytes from `byteOffset` (counted from the tensor's start) on. */
export type ChunkConsumer = (chunk: Uint8Array, byteOffset: number) => void | Promise<void>;

/** Named tensors that are read on demand: one file, or a checkpoint of several. */
export interface TensorStore {
  /** What messages call it. */
  readonly name: string;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** All bytes of one tensor, little-endian. Rejects with a UserError when there is none of that name. */
  readTensor(name: string): Promise<Uint8Array>;
  /**
   * Hands one tensor to `consume` in order, in chunks of at most `chunkBytes` (rounded down to a multiple of 8, so no
   * element is split; at least 8). A chunk is only good until the promise of its `consume` settles: its memory is used
   * again. The next chunk is read meanwhile, so twice `chunkBytes` of memory are held.
   */
  streamTensor(name: string, chunkBytes: number, consume: ChunkConsumer): Promise<void>;
  /** Closes every file; the store cannot be read after it. */
  close(): Promise<void>;
}

/** An open safetensors file. */
export interface SafetensorsFile extends TensorStore, SafetensorsHeader {}

async function readHeader(source: ByteSource): Promise<SafetensorsHeader> {
  const { name, size } = source;
  if (size < 8) throw invalidSafetensors(name, `it has ${size} bytes, too few for a header`);
  const prefix = new Uint8Array(8);
  await source.read(0, prefix);
  const length = Number(new DataView(prefix.buffer).getBigUint64(0, true));
  if (length > largestHeader) {
    throw invalidSafetensors(
      name,
      `it claims a header of ${length} bytes, more than the limit of ${largestHeader}`,
    );
  }
  if (8 + length > size) {
    throw invalidSafetensors(name, `it claims a header of ${length} bytes but has only ${size} bytes in all`);
  }
  const bytes = new Uint8Array(length);
  await source.read(8, bytes);
  return parseSafetensorsHeader(name, bytes, { dataStart: 8 + length, fileSize: size });
}

async function streamRange(
  source: ByteSource,
  { byteOffset, byteLength }: TensorInfo,
  chunkBytes: number,
  consume: ChunkConsumer,
): Promise<void> {
  const chunk = Math.max(8, chunkBytes - (chunkBytes % 8));
  const buffers = [
    new Uint8Array(Math.min(chunk, byteLength)),
    new Uint8Array(byteLength > chunk ? chunk : 0),
  ];
  const fill = async (offset: number): Promise<Uint8Array> => {
    const bytes = buffers[(offset / chunk) % 2]!.subarray(0, byteLength - offset);
    await source.read(byteOffset + offset, bytes);
    return bytes;
  };
  let filled = byteLength > 0 ? await fill(0) : new Uint8Array();
  for (let offset = 0; offset < byteLength; offset += chunk) {
    const current = filled;
    const following = offset + chunk;
    const consumed = Promise.resolve(current).then((bytes) => consume(bytes, offset));
    const [next] = await Promise.all([following < byteLength ? fill(following) : current, consumed]);
    filled = next;
  }
}

/** The tensor called `name` of `store`, or a UserError that says that there is none. */
export function requireTensor(store: Pick<TensorStore, "name" | "tensors">, name: string): TensorInfo {
  const tensor = store.tensors.get(name);
  if (tensor === undefined) throw new UserError(`${store.name} has no tensor ${JSON.stringify(name)}`);
  return tensor;
}

/**
 * Reads and checks the header of the safetensors file in `source`, which the returned file owns and closes. Rejects
 * with a UserError for whatever breaks the format (header over 100 MB, offsets outside the file, overlaps, gaps, a dtype
 * or shape that does not fit its bytes …), naming the file and the tensor; the source is closed then. Format:
 * https://huggingface.co/docs/safetensors
 */
export async function openSafetensors(source: ByteSource): Promise<SafetensorsFile> {
  try {
    const header = await readHeader(source);
    const store = { name: source.name, tensors: header.tensors };
    return {
      ...store,
      metadata: header.metadata,
      async readTensor(name) {
        const { byteOffset, byteLength } = requireTensor(store, name);
        const bytes = new Uint8Array(byteLength);
        await source.read(byteOffset, bytes);
        return bytes;
      },
      async streamTensor(name, chunkBytes, consume) {
        checkInteger("chunkBytes", chunkBytes, { min: 1 });
        await streamRange(source, requireTensor(store, name), chunkBytes, consume);
      },
      close: () => source.close(),
    };
  } catch (error) {
    await source.close();
    throw error;
  }
}
