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

const settled = async (usedPages: () => number) => {
  for (let turn = 0; usedPages() > 0 && turn < 1000; turn++) await new Promise((done) => setImmediate(done));
  return usedPages();
};

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
