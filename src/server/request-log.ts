/** Where log lines go; a pino logger is one. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** What is known of one request; prompts and output stay out of it. */
export interface RequestRecord {
  readonly id: string;
  readonly method: string;
  readonly path: string;
  /** From `performance.now()`. */
  readonly start: number;
  promptTokens?: number;
  cachedTokens?: number;
  completionTokens?: number;
  stream?: boolean;
  /** Set by routes whose work goes on after the answer has begun. */
  isStreaming?: boolean;
  error?: unknown;
}

/** The status logged when the client left before its answer, as nginx has it. */
export const CLIENT_CLOSED = 499;

/** What monitors ask for all the time. */
const polled = new Set(["/health", "/metrics", "/stats"]);

/** Writes the one line of a request that has ended. */
export function logRequest(logger: Logger, record: RequestRecord, status: number): void {
  const { id, method, path, start, promptTokens, cachedTokens, completionTokens, stream, error } = record;
  const ms = Math.round((performance.now() - start) * 10) / 10;
  const fields = {
    requestId: id,
    method,
    path,
    status,
    ms,
    promptTokens,
    cachedTokens,
    completionTokens,
    stream,
  };
  const reason = error instanceof Error ? error.message : String(error);
  if (error === undefined) logger[polled.has(path) ? "debug" : "info"](fields, "request");
  else if (status >= 500) logger.error({ ...fields, err: error }, "request failed");
  else logger.warn({ ...fields, reason }, status === CLIENT_CLOSED ? "client left" : "request refused");
}
