import { describe, expect, it } from "vitest";
import { fakeServer, post } from "../../tests/fixtures/server-fixture.ts";

const chat = (more: object = {}) => ({
  messages: [{ role: "user", content: "hello" }],
  temperature: 0,
  max_tokens: 8,
  ...more,
});

interface ErrorBody {
  readonly error: { message: string; type: string; param: string | null; code: string | null };
}

describe("requests that cannot be served", () => {
  const { handler, engine } = fakeServer({ limits: { maxBodyBytes: 4000, maxPrompts: 2 } });
  const long = "word ".repeat(200);
  it.each<[string, string, unknown, number, string | null, string | null]>([
    ["no messages", "chat/completions", {}, 400, "messages", "invalid_value"],
    ["empty messages", "chat/completions", chat({ messages: [] }), 400, "messages", "invalid_value"],
    [
      "a message without role",
      "chat/completions",
      chat({ messages: [{ content: "x" }] }),
      400,
      "messages[0].role",
      "invalid_value",
    ],
    [
      "a picture",
      "chat/completions",
      chat({ messages: [{ role: "user", content: [{ type: "image_url" }] }] }),
      400,
      "messages[0].content[0].type",
      "invalid_value",
    ],
    ["a hot temperature", "chat/completions", chat({ temperature: 3 }), 400, "temperature", "invalid_value"],
    [
      "a temperature in words",
      "chat/completions",
      chat({ temperature: "hot" }),
      400,
      "temperature",
      "invalid_value",
    ],
    ["top_p of 2", "chat/completions", chat({ top_p: 2 }), 400, "top_p", "invalid_value"],
    ["n of 0", "chat/completions", chat({ n: 0 }), 400, "n", "invalid_value"],
    ["n of 10⁹", "chat/completions", chat({ n: 1e9 }), 400, "n", "invalid_value"],
    ["half a token", "chat/completions", chat({ max_tokens: 1.5 }), 400, "max_tokens", "invalid_value"],
    ["an empty stop", "chat/completions", chat({ stop: "" }), 400, "stop", "invalid_value"],
    [
      "a bias of no id",
      "chat/completions",
      chat({ logit_bias: { x: 1 } }),
      400,
      "logit_bias.x",
      "invalid_value",
    ],
    [
      "a bias past the vocabulary",
      "chat/completions",
      chat({ logit_bias: { 9999: 1 } }),
      400,
      null,
      "invalid_value",
    ],
    [
      "top_logprobs alone",
      "chat/completions",
      chat({ top_logprobs: 2 }),
      400,
      "top_logprobs",
      "invalid_value",
    ],
    [
      "tools without a template",
      "chat/completions",
      chat({ tools: [{ type: "function", function: { name: "f" } }] }),
      400,
      "tools",
      "unsupported_parameter",
    ],
    [
      "a forced tool of none",
      "chat/completions",
      chat({ tool_choice: "required" }),
      400,
      "tool_choice",
      "invalid_value",
    ],
    [
      "no such schema type",
      "chat/completions",
      chat({ response_format: { type: "json_schema", json_schema: { schema: { type: "foo" } } } }),
      400,
      "response_format",
      "invalid_value",
    ],
    [
      "a grammar with min_tokens",
      "chat/completions",
      chat({ min_tokens: 2, response_format: { type: "json_object" } }),
      400,
      "min_tokens",
      "invalid_value",
    ],
    ["functions", "chat/completions", chat({ functions: [] }), 400, "functions", "invalid_value"],
    ["another model", "chat/completions", chat({ model: "gpt" }), 404, "model", "model_not_found"],
    [
      "a prompt over the context",
      "chat/completions",
      chat({ messages: [{ role: "user", content: long }] }),
      400,
      null,
      "context_length_exceeded",
    ],
    [
      "more tokens than the context",
      "chat/completions",
      chat({ max_tokens: 1000 }),
      400,
      null,
      "context_length_exceeded",
    ],
    [
      "a body over the limit",
      "chat/completions",
      chat({ user: "u".repeat(5000) }),
      413,
      null,
      "body_too_large",
    ],
    ["no JSON", "chat/completions", "{", 400, null, "invalid_json"],
    ["JSON of no object", "chat/completions", "[1]", 400, "body", "invalid_value"],
    ["no prompt", "completions", {}, 400, "prompt", "invalid_value"],
    ["an empty list of prompts", "completions", { prompt: [] }, 400, "prompt", "invalid_value"],
    ["ids past the vocabulary", "completions", { prompt: [9999] }, 400, null, "invalid_value"],
    ["too many prompts", "completions", { prompt: ["a", "b", "c"] }, 400, "prompt", "invalid_value"],
    ["best_of 2 of 1", "completions", { prompt: "a", best_of: 2 }, 400, "best_of", "invalid_value"],
    ["a suffix", "completions", { prompt: "a", suffix: "b" }, 400, "suffix", "invalid_value"],
    [
      "echo of log-probabilities",
      "completions",
      { prompt: "a", echo: true, logprobs: 1 },
      400,
      "echo",
      "invalid_value",
    ],
  ])("%s", async (_, path, body, status, param, code) => {
    const response = await handler.fetch(post(`/v1/${path}`, body));
    const { error } = (await response.json()) as ErrorBody;
    expect({ status: response.status, ...error }).toMatchObject({ status, param, code });
    expect(error.type).toBe(status === 404 ? "not_found_error" : "invalid_request_error");
    if (param !== null) expect(error.message).toContain(param === "model" ? "gpt" : param);
    expect(error.message).not.toMatch(/Invalid input$/);
    expect(engine.statistics()).toMatchObject({ running: 0, waiting: 0, usedPages: 0 });
  });

  it("invalid UTF-8, a body of another type, another path, another method", async () => {
    const bytes = Uint8Array.from([...Buffer.from('{"prompt": "'), 0xff, 0xfe, ...Buffer.from('"}')]);
    const json = { "content-type": "application/json" };
    const send = (path: string, init: RequestInit) =>
      handler.fetch(new Request(`http://localhost${path}`, init));
    const codeOf = async (response: Response) => [
      response.status,
      ((await response.json()) as ErrorBody).error.code,
    ];
    expect(
      await codeOf(await send("/v1/completions", { method: "POST", headers: json, body: bytes })),
    ).toEqual([400, "invalid_encoding"]);
    expect(await codeOf(await send("/v1/completions", { method: "POST", body: "{}" }))).toEqual([
      415,
      "unsupported_media_type",
    ]);
    expect(await codeOf(await send("/v1/nothing", {}))).toEqual([404, "not_found"]);
    expect(await codeOf(await send("/v1/completions", {}))).toEqual([405, "method_not_allowed"]);
    expect(await codeOf(await send("/v1/models/other", {}))).toEqual([404, "model_not_found"]);
  });
});

describe("who may ask", () => {
  it("keys: only with one of them, but for health and the page", async () => {
    const { handler } = fakeServer({ apiKeys: ["first", "second"] });
    const status = async (path: string, key?: string) => {
      const headers = key === undefined ? {} : { authorization: `Bearer ${key}` };
      return (await handler.fetch(new Request(`http://localhost${path}`, { headers }))).status;
    };
    expect(await status("/v1/models")).toBe(401);
    expect(await status("/v1/models", "third")).toBe(401);
    expect(await status("/v1/models", "first")).toBe(200);
    expect(await status("/v1/models", "second")).toBe(200);
    expect(await status("/metrics")).toBe(401);
    expect(await status("/stats")).toBe(401);
    expect(await status("/health")).toBe(200);
    expect(await status("/")).toBe(200);
  });

  it("origins: none unless allowed; names other than localhost are refused on loopback", async () => {
    const origin = { origin: "https://page.example" };
    const allowed = async (origins: string[]) => {
      const { handler } = fakeServer({ origins });
      const response = await handler.fetch(new Request("http://localhost/v1/models", { headers: origin }));
      return response.headers.get("access-control-allow-origin");
    };
    expect(await allowed([])).toBeNull();
    expect(await allowed(["https://other.example"])).toBeNull();
    expect(await allowed(["https://page.example"])).toBe("https://page.example");
    expect(await allowed(["*"])).toBe("*");
    const { handler } = fakeServer({ localOnly: true });
    expect((await handler.fetch(new Request("http://page.example/v1/models"))).status).toBe(403);
    expect((await handler.fetch(new Request("http://127.0.0.1:8000/v1/models"))).status).toBe(200);
  });

  it("X-Request-Id is the caller's, or a new one", async () => {
    const { handler } = fakeServer();
    const idOf = async (sent: string) => {
      const headers = { "x-request-id": sent };
      const response = await handler.fetch(new Request("http://localhost/health", { headers }));
      return response.headers.get("x-request-id");
    };
    expect(await idOf("mine-1")).toBe("mine-1");
    expect(await idOf("not an id")).toMatch(/^req_[0-9a-f]{32}$/);
  });
});
