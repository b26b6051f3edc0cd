import { eventStream } from "./event-stream.ts";
import type { RequestContext } from "./request-context.ts";

/** The answer whose body is the chunks as server-sent events; the request ends, in the log too, with the stream. */
export function streamAnswer(context: RequestContext, chunks: AsyncIterator<unknown>): Response {
  const { record, limits, abort, end } = context;
  record.isStreaming = true;
  const stream = eventStream(chunks, { stallMs: limits.stallMs, abort, onEnd: end });
  return new Response(stream, {
    headers: {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache",
      // Proxies such as nginx would collect the events otherwise.
      "x-accel-buffering": "no",
    },
  });
}
