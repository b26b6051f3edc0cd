import { UserError } from "../base/errors.ts";
import { type ByteSource, bytesSource, endedEarly } from "./byte-source.ts";
import type { HttpFile } from "./http-file.ts";

/** The most that is held in memory of a file whose server knows no ranges. */
const largestWhole = 2 ** 30;

/** Answers that break off without a byte before a stream gives up. */
const emptyAnswers = 3;

/** Bytes of `file` by ranged requests. */
export function rangedSource(file: HttpFile, size: number, version: string | undefined): ByteSource {
  const request = async (begin: number, end?: number): Promise<Response> => {
    const response = await file.request(begin, end);
    if (response.status !== 206) throw file.refused(response);
    const now = response.headers.get("etag") ?? response.headers.get("last-modified") ?? undefined;
    if (now === version) return response;
    throw new UserError(`${file.name} changed while it was read; load it again.`);
  };
  return {
    name: file.name,
    size,
    version,
    read: async (offset, target) => {
      if (offset + target.length > size) throw endedEarly(file.name, offset, target.length);
      if (target.length === 0) return;
      const response = await request(offset, offset + target.length);
      const bytes = await response.arrayBuffer().catch((cause: unknown) => {
        throw file.lost(cause);
      });
      if (bytes.byteLength !== target.length) throw endedEarly(file.name, offset, target.length);
      target.set(new Uint8Array(bytes));
    },
    stream: (offset) => streamFrom(file, request, offset, size),
    close: async () => {},
  };
}

/** The body from `offset` on; where it breaks off, another request goes on from there. */
async function* streamFrom(
  file: HttpFile,
  request: (begin: number) => Promise<Response>,
  offset: number,
  size: number,
): AsyncGenerator<Uint8Array> {
  let position = offset;
  for (let empty = 0; position < size; ) {
    const before = position;
    try {
      for await (const piece of piecesOf(await request(position))) {
        position += piece.length;
        yield piece;
      }
    } catch (cause) {
      if (cause instanceof UserError) throw cause;
      if (position === before && empty + 1 >= emptyAnswers) throw file.lost(cause);
    }
    empty = position === before ? empty + 1 : 0;
    if (empty >= emptyAnswers) throw endedEarly(file.name, position, size - position);
  }
}

/** The body in pieces; browsers do not iterate streams yet. */
async function* piecesOf({ body }: Response): AsyncGenerator<Uint8Array> {
  const reader = body!.getReader();
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** A file that came as a whole because its server knows no ranges. */
export async function wholeSource(
  file: HttpFile,
  response: Response,
  version: string | undefined,
): Promise<ByteSource> {
  const pieces: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const piece of piecesOf(response)) {
      size += piece.length;
      if (size > largestWhole) throw tooLong(file);
      pieces.push(piece);
    }
  } catch (cause) {
    throw cause instanceof UserError ? cause : file.lost(cause);
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return { ...bytesSource(file.name, bytes), version };
}

function tooLong(file: HttpFile): UserError {
  return new UserError(
    `${file.name} is larger than 1 GiB and its server answers no range requests; use a server that does.`,
  );
}
