import { ApiError } from "./errors.ts";

/** Names under which a server on loopback is asked by its own machine. */
const localNames = new Set(["localhost", "127.0.0.1", "[::1]"]);

/**
 * Throws an ApiError of 403 when a server that only loopback can reach is asked under another name: a foreign page
 * whose name was pointed at 127.0.0.1 would be of this origin to the browser.
 */
export function checkHost(request: Request): void {
  const { hostname } = new URL(request.url);
  if (localNames.has(hostname) || hostname.endsWith(".localhost")) return;
  throw new ApiError(403, `This server answers on localhost only, not as ${hostname}.`, {
    code: "host_not_allowed",
  });
}

/** The headers that let a page of `origin` read the answer; none unless it is among `origins`, "*" being all. */
export function crossOriginHeaders(origins: readonly string[], origin: string | null): [string, string][] {
  if (origin === null || origins.length === 0) return [];
  if (!origins.includes("*") && !origins.includes(origin)) return [["vary", "Origin"]];
  return [
    ["access-control-allow-origin", origins.includes("*") ? "*" : origin],
    ["access-control-expose-headers", "X-Request-Id, Retry-After"],
    ["vary", "Origin"],
  ];
}

/** The further headers of the answer to a browser's OPTIONS. */
export const preflightHeaders: [string, string][] = [
  ["access-control-allow-methods", "GET, POST, OPTIONS"],
  [
    "access-control-allow-headers",
    "Authorization, Content-Type, X-Request-Id, X-Stainless-Arch, X-Stainless-Lang, X-Stainless-OS, " +
      "X-Stainless-Package-Version, X-Stainless-Retry-Count, X-Stainless-Runtime, X-Stainless-Runtime-Version, " +
      "X-Stainless-Timeout",
  ],
  ["access-control-max-age", "600"],
];
