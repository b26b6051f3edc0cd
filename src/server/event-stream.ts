import { toApiError } from "./errors.ts";

const encoder = new TextEncoder();
const frame = (data: unknown) => encoder.encode(`data: ${JSON.stringify(data)}\n\n`);
const done = encoder.encode("data: [DONE]\n\n");

/** What an {@link eventStream} needs beside its chunks. */
export interface EventStreamOptions {
  /** A reader that takes nothing for so long is cut off. */
  readonly stallMs: number;
  /** Ends the work behind the chunks, at once: an iteration that waits cannot be told to return. */
  readonly abort: (reason: Error) => void;
  /** Called once: with what broke the stream, or nothing when it came to its end. */
  readonly onEnd?: (error?: unknown) => void;
}

/** The reader of a stream left, or took nothing for too long. */
export class ClientGoneError extends Error {
  override readonly name = "ClientGoneError";
}

/**
 * Server-sent events of JSON chunks, then `[DONE]`. The next chunk is asked for when the reader took the last, so a slow
 * reader holds back the engine; one that leaves or stalls aborts the work. An error becomes a last event.
 */
export function eventStream(
  chunks: AsyncIterator<unknown>,
  { stallMs, abort, onEnd }: EventStreamOptions,
): ReadableStream<Uint8Array> {
  let timer: NodeJS.Timeout | undefined;
  const finish = (error?: unknown) => {
    clearTimeout(timer);
    onEnd?.(error);
  };
  const leave = async (reason: Error) => {
    abort(reason);
    finish(reason);
    await chunks.return?.().catch(() => {});
  };
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        clearTimeout(timer);
        try {
          const next = await chunks.next();
          if (next.done) {
            controller.enqueue(done);
            controller.close();
            finish();
            return;
          }
          controller.enqueue(frame(next.value));
          timer = setTimeout(() => {
            const stalled = new ClientGoneError(`the client took nothing for ${stallMs} ms`);
            controller.error(stalled);
            void leave(stalled);
          }, stallMs);
          timer.unref();
        } catch (error) {
          controller.enqueue(frame(toApiError(error)));
          controller.close();
          finish(error);
        }
      },
      cancel: () => leave(new ClientGoneError("the client left")),
    },
    { highWaterMark: 0 },
  );
}

/**
 * Waits for the first chunk before the answer begins, so that a request that fails at once still gets its status.
 * Returns the same iteration from its start; unlike a generator, it can be ended before it was begun.
 */
export async function primed<Chunk>(
  chunks: AsyncGenerator<Chunk, void>,
): Promise<AsyncIterator<Chunk, void>> {
  let first: IteratorResult<Chunk, void> | null = await chunks.next();
  return {
    next() {
      if (first === null) return chunks.next();
      const kept = Promise.resolve(first);
      first = null;
      return kept;
    },
    return: () => chunks.return(),
  };
}
