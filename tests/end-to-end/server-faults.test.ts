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

it("64 streaming clients at once, over and over: no error, no page lost, flat memory, fair ends", async () => {
  const seconds = Number(process.env.FLASHMLA_LOAD_SECONDS ?? 10);
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "secret", maxRetries: 0 });
  const deadline = performance.now() + seconds * 1000;
  const counts = new Array<number>(64).fill(0);
  const heaps: number[] = [];
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
      heaps.push(process.memoryUsage().heapUsed);
    }
  };
  await Promise.all(counts.map(one));
  const now = await server.settle();
  expect(now).toMatchObject({ usedPages: 0, failedSteps: 0 });
  const total = counts.reduce((sum, count) => sum + count, 0);
  console.info(
    `${total} streams of 64 clients in ${seconds} s; each client ${Math.min(...counts)} to ${Math.max(...counts)}`,
  );
  expect(Math.min(...counts)).toBeGreaterThanOrEqual(Math.floor(Math.max(...counts) / 2) - 1);
  const half = Math.ceil(heaps.length / 2);
  expect(Math.min(...heaps.slice(half))).toBeLessThan(Math.max(...heaps.slice(0, half)) * 1.5 + 50e6);
}, 180_000);
