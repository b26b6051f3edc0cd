import { readFile } from "node:fs/promises";
import { chatCompletions } from "./chat-completions.ts";
import { completions } from "./completions.ts";
import type { Metrics } from "./metrics.ts";
import { describeModel, listModels } from "./models.ts";
import type { RequestContext } from "./request-context.ts";
import type { ServedModel } from "./served-model.ts";
import { detokenize, tokenize } from "./tokenization.ts";

/** Answers one kind of request. */
export type Route = (context: RequestContext) => Response | Promise<Response>;

/** A method, a path in Hono's spelling, and what answers it. */
export interface RouteEntry {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly route: Route;
  /** Whether it is answered without a key. */
  readonly open?: boolean;
}

/** The page may run its own script and talk to its own server, and nothing else. */
const pagePolicy =
  "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

async function chatPage(): Promise<Response> {
  const html = await readFile(new URL("./chat-page.html", import.meta.url), "utf8");
  const headers = { "content-type": "text/html; charset=utf-8", "content-security-policy": pagePolicy };
  return new Response(html, { headers });
}

function namedModel(model: ServedModel, request: Request): Response {
  const encoded = new URL(request.url).pathname.slice("/v1/models/".length);
  return describeModel(model, encoded.replace(/%2F/gi, "/"));
}

/** All routes of a server. */
export function serverRoutes(
  model: ServedModel,
  metrics: Metrics,
  version: string,
  isDraining: () => boolean,
): readonly RouteEntry[] {
  const health = () => {
    const [status, text] = isDraining() ? [503, "draining"] : [200, "ok"];
    return Response.json({ status: text }, { status });
  };
  const stats = () => {
    const { name, engine } = model;
    return Response.json({ model: name, maxContext: engine.maxContext, ...engine.statistics() });
  };
  const scrape = async () => {
    const headers = { "content-type": metrics.registry.contentType };
    return new Response(await metrics.registry.metrics(), { headers });
  };
  return [
    { method: "GET", path: "/", route: chatPage, open: true },
    { method: "GET", path: "/favicon.ico", route: () => new Response(null, { status: 204 }), open: true },
    { method: "GET", path: "/health", route: health, open: true },
    { method: "GET", path: "/version", route: () => Response.json({ version }) },
    { method: "GET", path: "/stats", route: stats },
    { method: "GET", path: "/metrics", route: scrape },
    { method: "GET", path: "/v1/models", route: () => listModels(model) },
    { method: "GET", path: "/v1/models/:name{.+}", route: ({ request }) => namedModel(model, request) },
    { method: "POST", path: "/v1/chat/completions", route: chatCompletions },
    { method: "POST", path: "/v1/completions", route: completions },
    { method: "POST", path: "/tokenize", route: tokenize },
    { method: "POST", path: "/detokenize", route: detokenize },
  ];
}
