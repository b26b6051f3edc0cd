import { randomUUID } from "node:crypto";
import { Hono } from "hono";
import { ApiKeys } from "./api-keys.ts";
import { checkHost, crossOriginHeaders, preflightHeaders } from "./cross-origin.ts";
import { ApiError, toApiError } from "./errors.ts";
import { ClientGoneError } from "./event-stream.ts";
import type { Metrics } from "./metrics.ts";
import type { ServerLimits } from "./request-context.ts";
import { CLIENT_CLOSED, type Logger, logRequest, type RequestRecord } from "./request-log.ts";
import { type RouteEntry, serverRoutes } from "./routes.ts";
import type { ServedModel } from "./served-model.ts";

/** What a {@link ServerHandler} is made of. */
export interface ServerHandlerOptions {
  readonly model: ServedModel;
  readonly metrics: Metrics;
  /** What `/version` says. */
  readonly version: string;
  /** Default: no log. */
  readonly logger?: Logger | undefined;
  /** Keys that are let in; without any everybody is. */
  readonly apiKeys?: readonly string[] | undefined;
  /** Origins whose pages may read answers, "*" for all; default: none. */
  readonly origins?: readonly string[] | undefined;
  /** Whether only names of loopback are answered; false. */
  readonly localOnly?: boolean | undefined;
  readonly limits?: Partial<ServerLimits> | undefined;
}

/** A server without a port. */
export interface ServerHandler {
  fetch(request: Request): Promise<Response>;
  /** From now on `/health` says 503; the engine itself refuses what comes after its own drain began. */
  beginDrain(): void;
}

const defaultLimits: ServerLimits = { maxBodyBytes: 4 * 2 ** 20, stallMs: 60_000, maxPrompts: 64 };
const silent: Logger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const givenId = /^[\w.:-]{1,128}$/;

function newRecord(request: Request): RequestRecord {
  const sent = request.headers.get("x-request-id") ?? "";
  const id = givenId.test(sent) ? sent : `req_${randomUUID().replaceAll("-", "")}`;
  return { id, method: request.method, path: new URL(request.url).pathname, start: performance.now() };
}

function errorResponse(error: ApiError): Response {
  const headers = new Headers();
  if (error.retryAfterSeconds !== null) headers.set("retry-after", String(error.retryAfterSeconds));
  if (error.status === 401) headers.set("www-authenticate", "Bearer");
  return Response.json(error, { status: error.status, headers });
}

/** Runs routes with all that is the same for each: caller, cancellation, errors, headers and the log. */
class Answering {
  readonly #model: ServedModel;
  readonly #logger: Logger;
  readonly #keys: ApiKeys;
  readonly #origins: readonly string[];
  readonly #localOnly: boolean;
  readonly #limits: ServerLimits;

  constructor({ model, logger, apiKeys, origins, localOnly, limits }: ServerHandlerOptions) {
    this.#model = model;
    this.#logger = logger ?? silent;
    this.#keys = new ApiKeys(apiKeys ?? []);
    this.#origins = origins ?? [];
    this.#localOnly = localOnly ?? false;
    this.#limits = { ...defaultLimits, ...limits };
  }

  async answer(
    { route, open = false }: Pick<RouteEntry, "route" | "open">,
    request: Request,
  ): Promise<Response> {
    const record = newRecord(request);
    let response: Response;
    try {
      if (this.#localOnly) checkHost(request);
      response = await this.#run(route, open ? "" : this.#keys.callerOf(request), request, record);
    } catch (error) {
      const shown = toApiError(error);
      record.error = shown.cause ?? shown;
      response = errorResponse(shown);
    }
    this.#addHeaders(response, request, record.id);
    if (!record.isStreaming)
      logRequest(this.#logger, record, request.signal.aborted ? CLIENT_CLOSED : response.status);
    return response;
  }

  #run(route: RouteEntry["route"], client: string, request: Request, record: RequestRecord) {
    const controller = new AbortController();
    const signal = AbortSignal.any([request.signal, controller.signal]);
    const abort = (reason: Error) => controller.abort(reason);
    const end = (error?: unknown) => {
      if (error !== undefined) record.error = error;
      logRequest(
        this.#logger,
        record,
        error instanceof ClientGoneError ? CLIENT_CLOSED : error === undefined ? 200 : 500,
      );
    };
    return route({ request, model: this.#model, limits: this.#limits, client, signal, abort, end, record });
  }

  #addHeaders({ headers }: Response, request: Request, id: string): void {
    headers.set("x-request-id", id);
    headers.set("x-content-type-options", "nosniff");
    const added = crossOriginHeaders(this.#origins, request.headers.get("origin"));
    for (const [name, value] of added) headers.append(name, value);
  }
}

function refuseUnknown(entries: readonly RouteEntry[], request: Request): Response {
  const { pathname } = new URL(request.url);
  const allowed = entries.filter(({ path }) => path === pathname).map(({ method }) => method);
  if (request.method === "OPTIONS") return new Response(null, { status: 204, headers: preflightHeaders });
  if (allowed.length === 0)
    throw new ApiError(404, `There is nothing at ${pathname}.`, { code: "not_found" });
  throw new ApiError(405, `${pathname} takes ${allowed.join(" and ")}, not ${request.method}.`, {
    code: "method_not_allowed",
  });
}

/** Makes the handler of one model's server. */
export function createServerHandler(options: ServerHandlerOptions): ServerHandler {
  const { model, metrics, version } = options;
  let draining = false;
  const entries = serverRoutes(model, metrics, version, () => draining);
  const answering = new Answering(options);
  const app = new Hono();
  for (const entry of entries) {
    app.on(entry.method, entry.path, (c) => answering.answer(entry, c.req.raw));
  }
  app.notFound((c) =>
    answering.answer({ route: () => refuseUnknown(entries, c.req.raw), open: true }, c.req.raw),
  );
  return {
    fetch: async (request) => app.fetch(request),
    beginDrain: () => {
      draining = true;
    },
  };
}
