import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { afterEach, expect, it } from "vitest";
import { runCli } from "./run-cli.ts";

const command = join(import.meta.dirname, "..", "..", "dist/cli/main.js");
const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
});

/** Starts `flashmla serve` and resolves when it listens, with its address and the lines of its log. */
async function startServe(flags: readonly string[], port = 0) {
  const child = spawn(
    process.execPath,
    [command, "serve", "--port", String(port), "--threads", "2", ...flags],
    {
      env: { ...process.env, FLASHMLA_API_KEY: "" },
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  children.push(child);
  const lines: Record<string, unknown>[] = [];
  let text = "";
  const url = await new Promise<string>((resolve, reject) => {
    child.on("exit", (code) => reject(new Error(`exit code ${code}`)));
    child.stdout.on("data", (bytes) => {
      text += bytes;
      const parts = text.split("\n");
      text = parts.pop() ?? "";
      for (const line of parts) lines.push(JSON.parse(line) as Record<string, unknown>);
      const started = lines.find(({ msg }) => msg === "listening");
      if (started !== undefined) resolve(String(started.url));
    });
  });
  return { child, url, lines };
}

const complete = (url: string, body: object) =>
  fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: "ROMEO:\n", ignore_eos: true, ...body }),
  });

it("SIGTERM: what is under way is completed, new requests are refused, exit code 0, one log line each", async () => {
  const { child, url, lines } = await startServe([]);
  const exit = once(child, "close");
  const stream = await complete(url, { max_tokens: 500, stream: true });
  const reader = stream.body!.getReader();
  await reader.read();
  child.kill("SIGTERM");
  while (!lines.some(({ msg }) => msg === "draining")) await new Promise((done) => setTimeout(done, 10));
  const refused = await complete(url, { max_tokens: 1 }).then(
    ({ status }) => status,
    () => "no connection",
  );
  expect(["no connection", 503]).toContain(refused);
  let text = "";
  for (let next = await reader.read(); !next.done; next = await reader.read())
    text += Buffer.from(next.value);
  expect(text).toContain('"finish_reason":"length"');
  expect(text.endsWith("data: [DONE]\n\n")).toBe(true);
  expect(await exit).toEqual([0, null]);
  const logged = lines.find(({ path, status }) => path === "/v1/completions" && status === 200);
  expect(logged).toMatchObject({ completionTokens: 500, stream: true, requestId: expect.any(String) });
  expect(lines.at(-1)).toMatchObject({ msg: "stopped", complete: true });
  expect(JSON.stringify(lines)).not.toContain("ROMEO");
});

it("SIGTERM with no time left: requests are cut, exit code 1", async () => {
  const { child, url } = await startServe(["--drain-seconds", "0"]);
  const exit = once(child, "close");
  const answer = complete(url, { max_tokens: 1000 }).then(
    ({ status }) => status,
    () => "cut",
  );
  while (((await (await fetch(`${url}/stats`)).json()) as { running: number }).running === 0);
  child.kill("SIGTERM");
  expect([503, "cut"]).toContain(await answer);
  expect(await exit).toEqual([1, null]);
});

it("SIGKILL and a restart on the same port: serves at once", async () => {
  const first = await startServe([]);
  const answer = complete(first.url, { max_tokens: 1000 }).catch(() => null);
  const exit = once(first.child, "close");
  first.child.kill("SIGKILL");
  await exit;
  await answer;
  const restart = performance.now();
  const second = await startServe([], Number(new URL(first.url).port));
  expect((await complete(second.url, { max_tokens: 3 })).status).toBe(200);
  // Two seconds alone; the machine may be busy.
  expect(performance.now() - restart).toBeLessThan(20_000);
});

it("bench serve: a load through the command line, in vllm's layout and as JSON", async () => {
  const { url } = await startServe([]);
  const load = ["--requests", "6", "--concurrency", "3", "--input-tokens", "20", "--prefix-tokens", "10"];
  const flags = ["bench", "serve", "--url", url, ...load, "--output-tokens", "8", "--goodput", "ttft:60000"];
  const { code, stdout } = await runCli(flags);
  expect(code).toBe(0);
  const lines = stdout.trim().split("\n");
  expect(lines[0]).toBe("============ Serving Benchmark Result ============");
  expect(lines.at(-1)).toBe("=".repeat(50));
  const numberAfter = (label: string) => Number(lines.find((line) => line.startsWith(label))!.split(":")[1]);
  expect(numberAfter("Successful requests")).toBe(6);
  expect(numberAfter("Failed requests")).toBe(0);
  expect(numberAfter("Maximum request concurrency")).toBe(3);
  expect(numberAfter("Total generated tokens")).toBe(48);
  for (const name of ["TTFT", "TPOT", "ITL", "E2EL"]) {
    const [median, p99] = [numberAfter(`Median ${name} (ms)`), numberAfter(`P99 ${name} (ms)`)];
    expect(median, name).toBeGreaterThan(0);
    expect(p99, name).toBeGreaterThanOrEqual(median);
  }
  const json = await runCli([...flags, "--json"]);
  const report = JSON.parse(json.stdout) as Record<string, number>;
  expect(report).toMatchObject({ completed: 6, failed: 0, outputTokens: 48 });
  expect(report.goodput).toBeCloseTo(report.requestsPerSecond!, 9);
});

it.each([
  ["a public address without a key", ["--host", "0.0.0.0"], /has no key; give --api-key/],
  ["a port out of range", ["--port", "70000"], /integer from 0 to 65535/],
  [
    "an address that is none here",
    ["--host", "192.0.2.1", "--api-key", "k"],
    /cannot listen on 192\.0\.2\.1/,
  ],
  ["a folder with no model", ["/nowhere"], /nowhere/],
  ["a context past the model's", ["--max-context", "5000"], /context is 1024 tokens/],
])("refuses %s with one sentence and exit code 1", async (_, flags, message) => {
  const { code, stderr, stdout } = await runCli(["serve", ...flags]);
  expect(code).toBe(1);
  expect(stdout).toBe("");
  expect(stderr).toMatch(message);
  expect(stderr).not.toMatch(/\n\s+at /);
});
