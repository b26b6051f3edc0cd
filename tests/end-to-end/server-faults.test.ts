import { connect, type Socket } from "node:net";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ShippedServer, shippedServer } from "../fixtures/shipped-server.ts";

let server: ShippedServer;
beforeAll(async () => {
  server = await shippedServer({ maxRunning: 8, handler: { apiKeys: ["secret"] } });
});
afterAll(() => server.stop());

const endless = JSON.stringify({ prompt: "ROMEO:", stream: true, max_tokens: 900, ignore_eos: true, n: 2 });

function head(body: string | Buffer, length = Buffer.byteLength(body)): string {
  return [
    "POST /v1/completions HTTP/1.1",
    "Host: 127.0.0.1",
    "Authorization: Bearer secret",
    "Content-Type: application/json",
    `Content-Length: ${length}`,
    "\r\n",
  ].join("\r\n");
}

const open = () =>
  new Promise<Socket>((resolve, reject) => {
    const socket = connect(server.port, "127.0.0.1", () => resolve(socket));
    socket.once("error", reject);
  });

/** What the server sends until the connection closes or `enough` says so. */
function read(socket: Socket, enough: (text: string) => boolean = () => false): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    socket.on("data", (bytes) => {
      text += bytes.toString("latin1");
      if (enough(text)) resolve(text);
    });
    socket.on("close", () => resolve(text));
    socket.on("error", () => resolve(text));
  });
}

describe("clients that misbehave", () => {
  it("vanish in the middle of a stream: aborted, all pages back", async () => {
    const before = server.model.engine.statistics().finished.abort;
    const sockets = await Promise.all([open(), open(), open()]);
    await Promise.all(
      sockets.map(async (socket) => {
        socket.write(head(endless) + endless);
        await read(socket, (text) => text.includes("data: "));
        socket.destroy();
      }),
    );
    expect((await server.settle()).finished.abort).toBe(before + 6);
  });

  it("vanish while they wait for a whole answer", async () => {
    const before = server.model.engine.statistics().finished.abort;
    const socket = await open();
    const body = JSON.stringify({ prompt: "ROMEO:", max_tokens: 900, ignore_eos: true });
    socket.write(head(body) + body);
    while (server.model.engine.statistics().running === 0) await new Promise((done) => setTimeout(done, 5));
    socket.destroy();
    expect((await server.settle()).finished.abort).toBe(before + 1);
  });

  it("send half a body and vanish: nothing is started", async () => {
    const before = server.model.engine.statistics().promptTokens;
    const socket = await open();
    socket.write(head(endless) + endless.slice(0, 20));
    await new Promise((done) => setTimeout(done, 50));
    socket.destroy();
    expect((await server.settle()).promptTokens).toBe(before);
  });

  it("send 10 MB: 413, and the next request is served", async () => {
    const body = Buffer.alloc(10 * 2 ** 20, "x");
    const socket = await open();
    const answer = read(socket, (text) => text.includes("body_too_large"));
    socket.write(head(body));
    socket.write(body);
    expect(await answer).toMatch(/^HTTP\/1.1 413 /);
    socket.destroy();
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "secret" });
    const { choices } = await client.completions.create({
      model: "shakespeare-mla",
      prompt: "O",
      max_tokens: 2,
    });
    expect(choices).toHaveLength(1);
  });

  it("send 10 MB in chunks of no announced length: 413", async () => {
    const chunk = new Uint8Array(2 ** 20).fill(120);
    let sent = 0;
    const body = new ReadableStream({
      pull: (controller) => (sent++ < 10 ? controller.enqueue(chunk) : controller.close()),
    });
    const headers = { authorization: "Bearer secret", "content-type": "application/json" };
    const init = { method: "POST", headers, body, duplex: "half" } as const;
    const outcome = await fetch(`${server.url}/v1/completions`, init).then(
      ({ status }) => status,
      () => "cut",
    );
    expect([413, "cut"]).toContain(outcome);
  });

  it("send what is not HTTP: 400", async () => {
    const socket = await open();
    const answer = read(socket);
    socket.write("BREW /pot HTCPCP/1.0\r\n\r\n");
    expect(await answer).toMatch(/^HTTP\/1.1 400 /);
  });

  it("read slowly: held back, then complete", async () => {
    const body = JSON.stringify({
      prompt: "ROMEO:",
      stream: true,
      max_tokens: 300,
      ignore_eos: true,
      seed: 1,
    });
    const socket = await open();
    socket.write(head(body) + body);
    socket.pause();
    await new Promise((done) => setTimeout(done, 200));
    const answer = read(socket, (text) => text.includes("[DONE]"));
    socket.resume();
    expect(await answer).toContain('"finish_reason":"length"');
    socket.destroy();
    expect((await server.settle()).usedPages).toBe(0);
  });

  it("give no key or a wrong one: 401 in the client's class", async () => {
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "guess", maxRetries: 0 });
    await expect(client.models.list()).rejects.toThrow(OpenAI.AuthenticationError);
  });
});

describe("requests that are refused over HTTP, and nothing is left of them", () => {
  const utf8 = Buffer.from([...Buffer.from('{"prompt": "'), 0xff, 0xfe, ...Buffer.from('"}')]);
  const long = JSON.stringify({ prompt: "sweet sorrow ".repeat(2000) });
  it.each<[string, string | Buffer, number, string]>([
    ["bytes that are no UTF-8", utf8, 400, "invalid_encoding"],
    ["half an object", '{"prompt": "ROMEO', 400, "invalid_json"],
    ["no body", "", 400, "invalid_json"],
    ["a prompt over the context", long, 400, "context_length_exceeded"],
    ["more output than the context", '{"prompt": "a", "max_tokens": 1e5}', 400, "context_length_exceeded"],
    ["n of 10⁹", '{"prompt": "a", "n": 1000000000}', 400, "invalid_value"],
    ["a temperature of 1e308", '{"prompt": "a", "temperature": 1e308}', 400, "invalid_value"],
    ["ids past the vocabulary", '{"prompt": [4294967295]}', 400, "invalid_value"],
    ["nested lists", `{"prompt": ${"[".repeat(5000)}${"]".repeat(5000)}}`, 400, "invalid_value"],
  ])("%s", async (_, body, status, code) => {
    const socket = await open();
    const answer = read(socket, (text) => text.includes('"error"'));
    socket.write(head(body));
    socket.write(body);
    const text = await answer;
    socket.destroy();
    expect(text).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(text).toContain(`"code":"${code}"`);
    expect(await server.settle()).toMatchObject({ usedPages: 0, failedSteps: 0 });
  });
});

it("a device that fails in a step: 5xx for the requests in it, and the next one works", async () => {
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "secret", maxRetries: 0 });
  const body = { model: "shakespeare-mla", prompt: "ROMEO:\n", temperature: 0, max_tokens: 200 };
  const more = { ignore_eos: true };
  const { text } = (await client.completions.create({ ...body, ...more, max_tokens: 20 })).choices[0]!;
  const { device } = server;
  const isolated = Object.getPrototypeOf(device).read as typeof device.read;
  const failNext = () => {
    device.read = () => {
      device.read = isolated;
      return Promise.reject(new Error("the device is gone"));
    };
  };
  const before = server.model.engine.statistics().failedSteps;
  failNext();
  await expect(client.completions.create({ ...body, ...more })).rejects.toThrow(OpenAI.InternalServerError);
  const stream = await client.completions.create({ ...body, ...more, stream: true });
  const whole = client.completions.create({ ...body, ...more }).then(
    () => 200,
    (error: unknown) => (error as { status?: number }).status,
  );
  const pieces = stream[Symbol.asyncIterator]();
  await pieces.next();
  while (server.model.engine.statistics().running < 2) await new Promise((done) => setTimeout(done, 1));
  failNext();
  const rest = async () => {
    while (!(await pieces.next()).done);
  };
  await expect(rest()).rejects.toThrow(/step/);
  expect(await whole).toBe(500);
  const next = await client.completions.create({ ...body, ...more, max_tokens: 20 });
  expect(next.choices[0]!.text).toBe(text);
  expect(await server.settle()).toMatchObject({ usedPages: 0, failedSteps: before + 2 });
});

it("64 streaming clients at once, over and over: no error, no page lost, flat memory, fair ends", async () => {
  const seconds = Number(process.env.FLASHMLA_LOAD_SECONDS ?? 10);
  const failed = server.model.engine.statistics().failedSteps;
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "secret", maxRetries: 0 });
  const deadline = performance.now() + seconds * 1000;
  const counts = new Array<number>(64).fill(0);
  const heaps: number[] = [];
  const resident: number[] = [];
  const one = async (_: number, index: number) => {
    while (performance.now() < deadline) {
      const prompt = `${index % 8 === 0 ? "ROMEO" : "JULIET"}:\nThou hast ${counts[index]} of ${index}`;
      const body = {
        model: "shakespeare-mla",
        prompt,
        max_tokens: 24,
        ignore_eos: true,
        stream: true as const,
      };
      let reason: string | null = null;
      for await (const chunk of await client.completions.create(body)) {
        reason = chunk.choices[0]?.finish_reason ?? reason;
      }
      expect(reason).toBe("length");
      counts[index]!++;
      const { heapUsed, rss } = process.memoryUsage();
      heaps.push(heapUsed);
      resident.push(rss);
    }
  };
  await Promise.all(counts.map(one));
  const now = await server.settle();
  expect(now).toMatchObject({ usedPages: 0, failedSteps: failed });
  const total = counts.reduce((sum, count) => sum + count, 0);
  console.info(
    `${total} streams of 64 clients in ${seconds} s; each client ${Math.min(...counts)} to ${Math.max(...counts)}`,
  );
  expect(Math.min(...counts)).toBeGreaterThanOrEqual(Math.floor(Math.max(...counts) / 2) - 1);
  const half = Math.ceil(heaps.length / 2);
  expect(Math.min(...heaps.slice(half))).toBeLessThan(Math.max(...heaps.slice(0, half)) * 1.5 + 50e6);
  expect(Math.max(...resident.slice(half))).toBeLessThan(Math.max(...resident.slice(0, half)) + 128e6);
}, 180_000);
