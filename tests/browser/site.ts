import { createReadStream, statSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";

const types: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
};

/** A request as the site saw it. */
export interface SeenRequest {
  readonly path: string;
  /** Bytes of its answer's body. */
  readonly bytes: number;
}

/** A static web server for a built site, on the loopback. */
export interface Site {
  readonly address: string;
  readonly requests: readonly SeenRequest[];
  close(): Promise<void>;
}

/** How a {@link Site} behaves. */
export interface SiteOptions {
  /** Sends the headers that make pages cross-origin isolated. */
  readonly isolated: boolean;
  /** Answers ranged requests; default true. */
  readonly ranges?: boolean;
  readonly port?: number;
}

/** Serves `folder`. */
export async function serveSite(
  folder: string,
  { isolated, ranges = true, port = 0 }: SiteOptions,
): Promise<Site> {
  const requests: SeenRequest[] = [];
  const answer = (request: IncomingMessage, response: ServerResponse) => {
    const path = decodeURIComponent(new URL(request.url ?? "/", "http://x").pathname);
    const file = join(folder, path.endsWith("/") ? `${path}index.html` : path);
    const stats = statSync(file, { throwIfNoEntry: false });
    if (isolated) {
      response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
      response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
    }
    if (!stats?.isFile()) {
      requests.push({ path, bytes: 0 });
      return void response.writeHead(404).end();
    }
    response.setHeader("Content-Type", types[extname(file)] ?? "application/octet-stream");
    response.setHeader("ETag", `"${stats.size}-${stats.mtimeMs}"`);
    const [, first, last] = (ranges && request.headers.range?.match(/bytes=(\d+)-(\d*)/)) || [];
    const begin = Number(first ?? 0);
    const end = Math.min(stats.size, last ? Number(last) + 1 : stats.size);
    response.setHeader("Content-Length", end - begin);
    if (first !== undefined) response.setHeader("Content-Range", `bytes ${begin}-${end - 1}/${stats.size}`);
    response.writeHead(first === undefined ? 200 : 206);
    requests.push({ path, bytes: request.method === "HEAD" ? 0 : end - begin });
    if (request.method === "HEAD" || end === begin) return void response.end();
    createReadStream(file, { start: begin, end: end - 1 }).pipe(response);
  };
  const server = createServer(answer).listen(port, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  return {
    address: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    requests,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}
