import { describe, expect, it } from "vitest";
import { fakeServer, post, readEvents } from "../../tests/fixtures/server-fixture.ts";

const chat = (more: object = {}) => ({
  messages: [{ role: "user", content: "hello" }],
  temperature: 0,
  max_tokens: 8,
  ...more,
});

interface ErrorBody {
  readonly error: { message: string; type: string; param: string | null; code: string | null };
}

const settled = async (usedPages: () => number) => {
  for (let turn = 0; usedPages() > 0 && turn < 1000; turn++) await new Promise((done) => setImmediate(done));
  return usedPages();
};

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

describe("load and faults", () => {
  it("a full queue: 429 with Retry-After, then served", async () => {
    const { handler, engine } = fakeServer({}, { maxRunning: 1, maxWaiting: 1 });
    const ask = () => handler.fetch(post("/v1/chat/completions", chat({ max_tokens: 60, ignore_eos: true })));
    const responses = await Promise.all([ask(), ask(), ask()]);
    expect(responses.map(({ status }) => status).sort()).toEqual([200, 200, 429]);
    const refused = responses.find(({ status }) => status === 429)!;
    expect(refused.headers.get("retry-after")).toBe("1");
    expect(((await refused.json()) as ErrorBody).error.type).toBe("rate_limit_error");
    expect((await ask()).status).toBe(200);
    expect(engine.statistics().usedPages).toBe(0);
  });

  it.each([false, true])(
    "a step that fails: 500 when stream is %s, and the next request works",
    async (stream) => {
      const { handler, runner, engine } = fakeServer();
      runner.failure = new Error("the device is gone");
      const failed = await handler.fetch(post("/v1/chat/completions", chat({ stream })));
      expect(failed.status).toBe(500);
      const { error } = (await failed.json()) as ErrorBody;
      expect(error).toMatchObject({ type: "server_error", code: "step_failed" });
      expect(error.message).not.toContain("device is gone");
      expect((await handler.fetch(post("/v1/chat/completions", chat()))).status).toBe(200);
      expect(engine.statistics().usedPages).toBe(0);
    },
  );

  it("a step that fails in the middle of a stream: an error event", async () => {
    const { handler, runner } = fakeServer();
    const body = chat({ stream: true, max_tokens: 100, ignore_eos: true });
    const reader = (await handler.fetch(post("/v1/chat/completions", body))).body!.getReader();
    await reader.read();
    runner.failure = new Error("the device is gone");
    let last = "";
    for (let next = await reader.read(); !next.done; next = await reader.read())
      last = Buffer.from(next.value).toString();
    expect(last).toMatch(/^data: {"error":{"message":"The step .*"code":"step_failed"/);
  });

  it.each(["before its first event", "after its first event"])(
    "a client that leaves %s: all pages come back",
    async (when) => {
      const { handler, engine } = fakeServer();
      const body = chat({ stream: true, max_tokens: 100, n: 3, ignore_eos: true });
      const response = await handler.fetch(post("/v1/chat/completions", body));
      expect(engine.statistics().running).toBe(3);
      const reader = response.body!.getReader();
      if (when.startsWith("after")) await reader.read();
      await reader.cancel();
      expect(await settled(() => engine.statistics().usedPages)).toBe(0);
      expect(engine.statistics()).toMatchObject({ running: 0, waiting: 0, finished: { abort: 3 } });
    },
  );

  it("a client that leaves a whole answer: all pages come back", async () => {
    const { handler, engine } = fakeServer();
    const controller = new AbortController();
    const request = new Request(post("/v1/chat/completions", chat({ max_tokens: 100, ignore_eos: true })), {
      signal: controller.signal,
    });
    const answer = handler.fetch(request);
    while (engine.statistics().running === 0) await new Promise((done) => setImmediate(done));
    controller.abort();
    await answer;
    expect(await settled(() => engine.statistics().usedPages)).toBe(0);
    expect(engine.statistics().finished.abort).toBe(1);
  });

  it("a client that takes nothing is cut off", async () => {
    const { handler, engine } = fakeServer({ limits: { stallMs: 20 } }, { maxUnreadTokens: 4 });
    const body = chat({ stream: true, max_tokens: 100, ignore_eos: true });
    const reader = (await handler.fetch(post("/v1/chat/completions", body))).body!.getReader();
    await reader.read();
    await reader.read();
    while (engine.statistics().finished.abort === 0) await new Promise((done) => setTimeout(done, 5));
    expect(engine.statistics()).toMatchObject({ running: 0, usedPages: 0, finished: { abort: 1 } });
    await expect(reader.read()).rejects.toThrow("took nothing for 20 ms");
  });

  it("a refused prompt takes the others of its request with it", async () => {
    const { handler, engine } = fakeServer();
    const response = await handler.fetch(
      post("/v1/completions", { prompt: [[5, 6], [9999]], max_tokens: 50 }),
    );
    expect(response.status).toBe(400);
    expect(await settled(() => engine.statistics().usedPages)).toBe(0);
    expect(engine.statistics()).toMatchObject({ running: 0, waiting: 0 });
  });

  it("draining: health and new requests say 503", async () => {
    const { handler, engine } = fakeServer();
    handler.beginDrain();
    await engine.drain();
    expect((await handler.fetch(new Request("http://localhost/health"))).status).toBe(503);
    const refused = await handler.fetch(post("/v1/chat/completions", chat()));
    expect(refused.status).toBe(503);
    expect(refused.headers.get("retry-after")).toBe("5");
  });
});

describe("answers", () => {
  it("a stream is the whole answer in pieces, its usage last", async () => {
    const { handler } = fakeServer();
    const whole = (await (
      await handler.fetch(post("/v1/chat/completions", chat({ n: 2, seed: 1, temperature: 1 })))
    ).json()) as {
      choices: { message: { content: string }; finish_reason: string }[];
      usage: object;
    };
    const body = chat({
      n: 2,
      seed: 1,
      temperature: 1,
      stream: true,
      stream_options: { include_usage: true },
    });
    const events = await readEvents<{
      choices: { index: number; delta: { role?: string; content?: string }; finish_reason: string | null }[];
      usage: { completion_tokens: number } | null;
    }>(await handler.fetch(post("/v1/chat/completions", body)));
    const texts = ["", ""];
    for (const { choices } of events)
      for (const { index, delta } of choices) texts[index] += delta.content ?? "";
    expect(texts).toEqual(whole.choices.map(({ message }) => message.content));
    expect(texts[0]).not.toBe(texts[1]);
    expect(events.slice(0, -1).every(({ usage }) => usage === null)).toBe(true);
    expect(events.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: expect.any(Number) } });
    const ends = events
      .flatMap(({ choices }) => choices.map((choice) => choice.finish_reason))
      .filter(Boolean);
    expect(ends).toEqual(whole.choices.map((choice) => choice.finish_reason));
  });

  it("several prompts, text and ids alike, each with n choices in order", async () => {
    const { handler, model } = fakeServer();
    const ids = [...model.tokenizer.encode("one")];
    const ask = async (prompt: unknown) => {
      const body = { prompt, n: 2, seed: 3, max_tokens: 5, ignore_eos: true, echo: true };
      const response = await handler.fetch(post("/v1/completions", body));
      return (await response.json()) as { choices: { index: number; text: string }[]; usage: object };
    };
    const both = await ask(["one", "two"]);
    expect(both.choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    expect(both.choices.map(({ text }) => text.slice(0, 3))).toEqual(["one", "one", "two", "two"]);
    expect(both.usage).toMatchObject({ completion_tokens: 20 });
    expect((await ask(ids)).choices.map(({ text }) => text)).toEqual(
      both.choices.slice(0, 2).map(({ text }) => text),
    );
  });

  it("tokenize and detokenize are each other's inverse", async () => {
    const { handler, model } = fakeServer();
    const answer = await handler.fetch(
      post("/tokenize", { prompt: "Grüße, world", return_token_strs: true }),
    );
    const { tokens, count, max_model_len, token_strs } = (await answer.json()) as Record<string, never[]>;
    expect(tokens).toEqual([...model.tokenizer.encode("Grüße, world")]);
    expect([count, max_model_len, token_strs?.length]).toEqual([tokens!.length, 128, tokens!.length]);
    const back = await handler.fetch(post("/detokenize", { tokens }));
    expect(await back.json()).toEqual({
      prompt: model.tokenizer.decode(tokens!, { skipSpecialTokens: false }),
    });
  });

  it("metrics have vLLM's names and count what was done", async () => {
    const { handler } = fakeServer();
    await handler.fetch(post("/v1/chat/completions", chat({ ignore_eos: true })));
    const text = await (await handler.fetch(new Request("http://localhost/metrics"))).text();
    const labels = 'model_name="fake",engine="0"';
    expect(text).toContain(`vllm:generation_tokens_total{${labels}} 8`);
    expect(text).toContain(`vllm:request_success_total{finished_reason="length",${labels}} 1`);
    for (const name of ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"]) {
      expect(text).toContain(`vllm:${name}{${labels}} 0`);
    }
  });

  it("the page is one file that asks nobody else", async () => {
    const { handler } = fakeServer();
    const page = await (await handler.fetch(new Request("http://localhost/"))).text();
    expect(page).toContain("<!doctype html>");
    expect(page).not.toMatch(/(?:src|href)=|https?:\/\//);
  });
});
