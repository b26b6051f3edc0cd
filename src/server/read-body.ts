import type { z } from "zod";
import { errorMessage } from "../base/errors.ts";
import { ApiError } from "./errors.ts";

const tooLarge = (limit: number) =>
  new ApiError(413, `The body is larger than ${limit} bytes, the most this server takes.`, {
    code: "body_too_large",
  });

async function readBytes(request: Request, limit: number): Promise<Uint8Array> {
  const announced = Number(request.headers.get("content-length") ?? 0);
  if (announced > limit) throw tooLarge(limit);
  const chunks: Uint8Array[] = [];
  let total = 0;
  const reader = request.body?.getReader();
  try {
    for (let next = await reader?.read(); next !== undefined && !next.done; next = await reader?.read()) {
      total += next.value.byteLength;
      if (total > limit) throw tooLarge(limit);
      chunks.push(next.value);
    }
  } catch (error) {
    await reader?.cancel().catch(() => {});
    if (error instanceof ApiError) throw error;
    throw new ApiError(400, "The body ended before it was complete.", {
      code: "incomplete_body",
      cause: error,
    });
  }
  return Buffer.concat(chunks, total);
}

function parseJson(bytes: Uint8Array): unknown {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new ApiError(400, "The body is not valid UTF-8.", { code: "invalid_encoding", cause: error });
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ApiError(400, `The body is not valid JSON: ${errorMessage(error)}.`, {
      code: "invalid_json",
      cause: error,
    });
  }
}

/** `messages[0].content` for the path of an issue. */
function fieldName(path: readonly PropertyKey[]): string {
  return path
    .map((key, i) => (typeof key === "number" ? `[${key}]` : `${i === 0 ? "" : "."}${String(key)}`))
    .join("");
}

type Issue = z.core.$ZodIssue;

/** The issue of the alternative that came furthest: "expected string" says little when an object was nearly right. */
function deepest(issue: Issue): Issue {
  if (issue.code !== "invalid_union") return issue;
  const inner = issue.errors.flat().map((one) => ({ ...one, path: [...issue.path, ...one.path] }));
  const furthest = inner.reduce<Issue | undefined>(
    (best, one) => (best === undefined || one.path.length > best.path.length ? one : best),
    undefined,
  );
  return furthest === undefined || furthest.path.length === issue.path.length ? issue : deepest(furthest);
}

/** Checks `value` against a schema. Throws an ApiError that names the first field at fault. */
export function parseFields<Schema extends z.ZodType>(schema: Schema, value: unknown): z.output<Schema> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [first] = parsed.error.issues;
  const issue = first === undefined ? undefined : deepest(first);
  const param = fieldName(issue?.path ?? []) || "body";
  throw new ApiError(400, `${param}: ${issue?.message ?? "invalid"}`, { param, code: "invalid_value" });
}

/**
 * Reads a JSON body of at most `limit` bytes. Only `application/json` is taken: a browser asks a foreign page's server
 * before it sends that, so no page can reach a server on loopback. Throws an ApiError of 400, 413 or 415.
 */
export async function readJsonBody<Schema extends z.ZodType>(
  request: Request,
  schema: Schema,
  limit: number,
): Promise<z.output<Schema>> {
  const type = request.headers.get("content-type")?.split(";")[0]?.trim().toLowerCase();
  if (type !== "application/json") {
    throw new ApiError(415, `The content type must be application/json, got ${type ?? "none"}.`, {
      code: "unsupported_media_type",
    });
  }
  return parseFields(schema, parseJson(await readBytes(request, limit)));
}
