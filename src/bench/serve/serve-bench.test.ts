import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fakeServer } from "../../../tests/fixtures/server-fixture.ts";
import { type ListeningServer, listen } from "../../server/listen.ts";
import type { Endpoint, RequestResult } from "./completion-client.ts";
import { type LoadOptions, makeRequests, runLoad, tokensPerWord } from "./load.ts";
import { formatReport, reportLoad, spreadOf } from "./serve-report.ts";

const load: LoadOptions = {
  ...{ requests: 20, inputTokens: 20, prefixTokens: 8, outputTokens: 6 },
  ...{ rate: Number.POSITIVE_INFINITY, concurrency: 4, seed: 1 },
};

describe("a load on a server", () => {
  const { handler, engine } = fakeServer({}, { maxRunning: 4 });
  let server: ListeningServer;
  let endpoint: Endpoint;
  beforeAll(async () => {
    server = await listen(handler, { host: "127.0.0.1", port: 0 });
    endpoint = { url: server.url, model: "fake", apiKey: null };
  });
  afterAll(async () => {
    server.cut();
    await server.close();
  });

  it("every request is answered in full and counted as the server counted it", async () => {
    const requests = makeRequests(
      { ...load, inputTokens: 60 },
      await tokensPerWord(endpoint, 1).catch(() => 4),
    );
    const before = engine.statistics();
    const result = await runLoad(endpoint, requests.slice(0, 5), load);
    const after = engine.statistics();
    const report = reportLoad(result, {});
    expect(result.failures).toEqual([]);
    expect(report.completed).toBe(5);
    expect(report.outputTokens).toBe(30);
    expect(report.inputTokens).toBe(after.promptTokens - before.promptTokens);
    expect(report.ttft.mean).toBeGreaterThan(0);
    expect(report.e2el.median).toBeGreaterThanOrEqual(report.ttft.median);
  });

  it("a refusal is a failure that says why", async () => {
    const { results, failures } = await runLoad(endpoint, [{ prompt: "a", maxTokens: 5000 }], load);
    expect(results).toEqual([]);
    expect(failures[0]!.error).toContain("400");
    const nowhere = { ...endpoint, url: "http://127.0.0.1:1" };
    await expect(tokensPerWord(nowhere, 1)).rejects.toThrow("cannot be measured");
  });
});

it("requests: the same for the same seed, one beginning, different ends", () => {
  const requests = makeRequests(load, 2);
  expect(requests).toEqual(makeRequests(load, 2));
  const prefix = requests[0]!.prompt.split(" ").slice(0, 4).join(" ");
  expect(requests.every(({ prompt }) => prompt.startsWith(`${prefix} `))).toBe(true);
  expect(new Set(requests.map(({ prompt }) => prompt)).size).toBe(20);
  expect(requests[0]!.prompt.split(" ")).toHaveLength(10);
});

it("the figures are defined as vllm bench serve defines them", () => {
  expect(spreadOf([4, 1, 3, 2])).toEqual({ mean: 2.5, median: 2.5, p99: expect.closeTo(3.97, 9) });
  expect(spreadOf([])).toEqual({ mean: 0, median: 0, p99: 0 });
  const one = (firstTokenMs: number): RequestResult => {
    return {
      sentAt: 5000 + 8 * firstTokenMs,
      inputTokens: 10,
      outputTokens: 5,
      firstTokenMs,
      betweenMs: [10, 10, 10, 10],
      totalMs: firstTokenMs + 40,
    };
  };
  const report = reportLoad(
    { seconds: 2, results: [one(100), one(300)], failures: [] },
    { ttft: 200, tpot: 10 },
  );
  expect(report).toMatchObject({
    ...{ requestsPerSecond: 1, goodput: 0.5, outputTokensPerSecond: 5, tokensPerSecond: 15 },
    tpot: { mean: 10 },
    itl: { median: 10 },
    ttft: { mean: 200 },
    e2el: { p99: expect.closeTo(338, 9) },
    // Sent 1.6 s apart, so the first second sees one of them, the second and third the other.
    ...{ peakOutputTokensPerSecond: 5, peakConcurrentRequests: 1 },
  });
  const lines = formatReport(report, { concurrency: 8, rate: 2.5 }).split("\n");
  expect(lines.slice(1, 6)).toEqual([
    "Successful requests:                     2",
    "Failed requests:                         0",
    "Maximum request concurrency:             8",
    "Request rate configured (RPS):           2.50",
    "Benchmark duration (s):                  2.00",
  ]);
  expect(lines).toContain("Peak output token throughput (tok/s):    5.00");
  expect(lines[0]).toBe("============ Serving Benchmark Result ============");
  expect(lines).toContain("Request goodput (req/s):                 0.50");
  expect(lines).toContain("-----Time per Output Token (excl. 1st token)------");
  expect(lines).toContain("P99 E2EL (ms):                           338.00");
});
