// `flashmla serve` on a GPU, over HTTP: many streams at once, one that vanishes, pages that all come back, a drain.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

const cli = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));
const CLIENTS = 16;
const TOKENS = 96;
let server;
let url;

/** Starts the server with the shipped model and resolves when it listens. */
before(async () => {
  const flags = ["serve", "--device", "cuda", "--port", "0"];
  const env = { ...process.env, FLASHMLA_API_KEY: "" };
  server = spawn(process.execPath, [cli, ...flags], { env, stdio: ["ignore", "pipe", "pipe"] });
  let [log, notes] = ["", ""];
  server.stderr.on("data", (bytes) => {
    notes += bytes;
  });
  url = await new Promise((resolve, reject) => {
    server.once("exit", (code) => reject(new Error(`the server ended with ${code}: ${notes}`)));
    server.stdout.on("data", (bytes) => {
      log += bytes;
      const address = /"url":"(http:[^"]+)"/.exec(log)?.[1];
      if (address) resolve(address);
    });
  });
  server.removeAllListeners("exit");
});
after(() => server.kill("SIGKILL"));

const statistics = async () => (await fetch(`${url}/stats`)).json();

/** Streams a completion; the text, the number of pieces, and whether the stream ended as it should. */
async function stream(prompt, { signal, onPiece } = {}) {
  const body = { prompt, max_tokens: TOKENS, temperature: 0, ignore_eos: true, stream: true };
  const init = {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  };
  const response = await fetch(`${url}/v1/completions`, {
    ...init,
    signal: signal ?? AbortSignal.timeout(30_000),
  });
  assert.equal(response.status, 200);
  let [text, rest, pieces, isWhole] = ["", "", 0, false];
  for await (const bytes of response.body.pipeThrough(new TextDecoderStream())) {
    const events = (rest + bytes).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") isWhole = true;
      else {
        text += JSON.parse(data).choices[0]?.text ?? "";
        onPiece?.(++pieces);
      }
    }
  }
  return { text, pieces, isWhole };
}

async function untilIdle() {
  for (let i = 0; i < 100; i++) {
    const now = await statistics();
    if (now.running === 0 && now.waiting === 0) return now;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return statistics();
}

const prompts = Array.from(
  { length: CLIENTS },
  (_, i) => `Scene ${i}. Enter ${i + 2} lords and a messenger.\n`,
);

test("16 streams at once: all whole, each the text that it gets alone, every page returned", async () => {
  const start = performance.now();
  const together = await Promise.all(prompts.map((prompt) => stream(prompt)));
  const seconds = (performance.now() - start) / 1000;
  console.log(
    `${CLIENTS} streams of ${TOKENS} tokens: ${((CLIENTS * TOKENS) / seconds).toFixed(0)} tokens/s`,
  );
  for (const { isWhole, text } of together) assert.ok(isWhole && text.length > TOKENS / 2);
  for (const i of [0, 7, 15]) assert.equal((await stream(prompts[i])).text, together[i].text, prompts[i]);
  const { running, waiting, usedPages, failedSteps } = await untilIdle();
  assert.deepEqual(
    { running, waiting, usedPages, failedSteps },
    { running: 0, waiting: 0, usedPages: 0, failedSteps: 0 },
  );
});

test("a client that vanishes is ended, the other fifteen are not, and its pages come back", async () => {
  const leaving = new AbortController();
  const onPiece = (pieces) => pieces === 3 && leaving.abort();
  const [left, ...stayed] = await Promise.all(
    prompts.map((prompt, i) =>
      i === 0 ? stream(prompt, { signal: leaving.signal, onPiece }).catch((error) => error) : stream(prompt),
    ),
  );
  assert.equal(left.name, "AbortError");
  for (const { isWhole } of stayed) assert.ok(isWhole);
  const { usedPages, finished } = await untilIdle();
  assert.equal(usedPages, 0);
  assert.equal(finished.abort, 1);
});

test("SIGTERM drains: a stream under way ends whole, exit code 0", async () => {
  const ended = new Promise((resolve) => server.once("exit", resolve));
  const onPiece = (pieces) => pieces === 2 && server.kill("SIGTERM");
  const { isWhole } = await stream("Exeunt.", { onPiece });
  assert.ok(isWhole);
  assert.equal(await ended, 0);
});
