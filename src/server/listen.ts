import type { Server } from "node:http";
import { isIPv4, isIPv6 } from "node:net";
import { serve } from "@hono/node-server";
import { errorCode, UserError } from "../base/errors.ts";
import type { ServerHandler } from "./handler.ts";

/** Where a server listens. */
export interface ListenOptions {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
}

/** A server with a port. */
export interface ListeningServer {
  /** Such as `http://127.0.0.1:8000`. */
  readonly url: string;
  readonly port: number;
  /** Takes no more connections and resolves when the last one is closed; idle ones are closed at once. */
  close(): Promise<void>;
  /** Cuts every connection. */
  cut(): void;
}

/** Whether only programs of the same machine can reach `host`. */
export function isLoopback(host: string): boolean {
  if (host === "localhost" || host === "::1") return true;
  return isIPv4(host) && host.startsWith("127.");
}

/**
 * Throws UserError for an address that other machines reach, unless callers have to show a key: an open port is
 * everybody's to use.
 */
export function checkAddress(host: string, hasKey: boolean): void {
  if (hasKey || isLoopback(host)) return;
  throw new UserError(
    `Other machines could reach ${host} and this server has no key; give --api-key or FLASHMLA_API_KEY, or listen on 127.0.0.1.`,
  );
}

/** Milliseconds a client may take for its headers, and for its headers and body together. */
const HEADERS_MS = 10_000;
const REQUEST_MS = 60_000;
const SWEEP_MS = 50;

function reason(error: unknown, { host, port }: ListenOptions): UserError {
  const code = errorCode(error);
  if (code === "EADDRINUSE") {
    return new UserError(
      `Port ${port} of ${host} is taken; choose another with --port, or 0 for a free one.`,
    );
  }
  if (code === "EACCES") return new UserError(`Port ${port} needs more rights; choose one from 1024 on.`);
  return new UserError(`The server cannot listen on ${host} (${code ?? String(error)}); check --host.`);
}

/** Opens the port. Rejects with a UserError when it cannot be opened. */
export function listen(handler: ServerHandler, options: ListenOptions): Promise<ListeningServer> {
  return new Promise((resolve, reject) => {
    const server = serve(
      {
        fetch: (request) => handler.fetch(request),
        hostname: options.host,
        port: options.port,
        overrideGlobalObjects: false,
        serverOptions: {
          headersTimeout: HEADERS_MS,
          requestTimeout: REQUEST_MS,
          connectionsCheckingInterval: 2000,
        },
      },
      ({ port }) => {
        const name = isIPv6(options.host) ? `[${options.host}]` : options.host;
        resolve({ url: `http://${name}:${port}`, port, close: () => close(server), cut: () => cut(server) });
      },
    );
    server.once("error", (error) => reject(reason(error, options)));
  });
}

type AnyServer = ReturnType<typeof serve>;

const isHttp = (server: AnyServer): server is Server => "closeIdleConnections" in server;

/** Connections that fall idle while the server closes are closed then; Node would wait for their keep-alive to end. */
function close(server: AnyServer): Promise<void> {
  return new Promise((resolve) => {
    const sweep = setInterval(() => isHttp(server) && server.closeIdleConnections(), SWEEP_MS);
    server.close(() => {
      clearInterval(sweep);
      resolve();
    });
  });
}

function cut(server: AnyServer): void {
  if (isHttp(server)) server.closeAllConnections();
}
