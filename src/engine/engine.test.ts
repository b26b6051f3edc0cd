import { describe, expect, it } from "vitest";
import { collect, fakeEngine, lettersOf } from "../../tests/fixtures/engine-fixture.ts";
import type { FakeRunner } from "../../tests/fixtures/fake-runner.ts";
import { createRandom } from "../base/random.ts";
import type { Engine } from "./engine.ts";
import { nextTurn } from "./next-turn.ts";
import type { GenerateRequest } from "./request.ts";

const greedy = { temperature: 0, ignoreEos: true } as const;

/** One request after random others: read fast or slowly, left in the middle, or read to the end and compared. */
async function randomRequest(
  engine: Engine,
  runner: FakeRunner,
  below: (limit: number) => number,
): Promise<void> {
  const shared = Array.from({ length: below(12) }, (_, i) => i % 5);
  const promptIds = [...shared, ...Array.from({ length: 1 + below(8) }, () => below(3))];
  const [n, maxTokens] = [below(5) === 0 ? 3 : 1, 1 + below(30)];
  const more = { priority: below(2), client: `client ${below(3)}` };
  const request: GenerateRequest = { promptIds, maxTokens, n, ...greedy, ...more };
  const leaveAfter = below(4) === 0 ? below(4) : Number.POSITIVE_INFINITY;
  const isSlow = below(3) === 0;
  const outputs: number[][] = Array.from({ length: n }, () => []);
  let events = 0;
  for await (const event of engine.generate(request)) {
    if (event.kind === "tokens") outputs[event.index]!.push(...event.tokenIds);
    if (++events > leaveAfter) return;
    for (let turn = 0; isSlow && turn < 3; turn++) await nextTurn();
  }
  const expected = runner.alone(promptIds, maxTokens);
  for (const output of outputs) expect(output).toEqual(expected);
}

it.each([0, 3])(
  "pages=32 pageSize=4, 1,500 random requests, %i guesses: each as alone",
  async (draftTokens) => {
    const { engine, runner } = fakeEngine({}, { maxUnreadTokens: 2, draftTokens, maxRunning: 6 });
    const random = createRandom(5 + draftTokens);
    // Some calls take turns of the event loop, in which requests come and go.
    runner.onCall = () => (random.integer(3) === 0 ? nextTurn() : undefined);
    const requests = Array.from({ length: 1500 }, () => (limit: number) => random.integer(limit));
    const clients = Array.from({ length: 12 }, async () => {
      for (let below = requests.pop(); below !== undefined; below = requests.pop()) {
        await randomRequest(engine, runner, below);
      }
    });
    await Promise.all(clients);
    await engine.drain();
    const statistics = engine.statistics();
    expect(statistics).toMatchObject({ running: 0, waiting: 0, paused: 0, usedPages: 0, failedSteps: 0 });
    expect(statistics.preemptions).toBeGreaterThan(20);
    expect(statistics.cachedTokens).toBeGreaterThan(2000);
    expect(statistics.pageCopies).toBeGreaterThan(200);
    expect(statistics.finished.abort).toBeGreaterThan(200);
  },
);

describe("where a sequence ends", () => {
  const promptIds = [3, 1, 4];
  const { engine, runner } = fakeEngine();
  const alone = runner.alone(promptIds, 40);
  const run = async (more: Partial<GenerateRequest>) =>
    (await collect(engine.generate({ promptIds, ...greedy, ...more })))[0]!;
  const firstOf = (id: number) => alone.indexOf(id) + 1;
  const eighth = alone[7]!;

  it("maxTokens: length", async () => {
    const { text, tokenIds, finish } = await run({ maxTokens: 12 });
    expect(tokenIds).toEqual(alone.slice(0, 12));
    expect(text).toBe(lettersOf(alone.slice(0, 12)));
    expect(finish).toMatchObject({ reason: "length", stop: null });
    expect(finish?.usage).toEqual({ promptTokens: 3, cachedTokens: 0, completionTokens: 12 });
  });

  it("no maxTokens: the context is filled", async () => {
    expect((await run({})).finish?.usage.completionTokens).toBe(61);
  });

  it("stopTokenIds: the id is counted, its text left out", async () => {
    const { text, tokenIds, finish } = await run({ stopTokenIds: [eighth] });
    expect(tokenIds).toEqual(alone.slice(0, firstOf(eighth)));
    expect(text).toBe(lettersOf(tokenIds.slice(0, -1)));
    expect(finish).toMatchObject({ reason: "stop", stop: eighth });
  });

  it("an end-of-sequence id ends it, unless it is ignored", async () => {
    const own = fakeEngine({}, { eosTokenIds: [eighth] }).engine;
    const [ended] = await collect(own.generate({ promptIds, temperature: 0 }));
    expect(ended!.tokenIds).toEqual(alone.slice(0, firstOf(eighth)));
    expect(ended!.finish).toMatchObject({ reason: "stop", stop: null });
    const [ignored] = await collect(own.generate({ promptIds, ...greedy, maxTokens: 20 }));
    expect(ignored!.tokenIds).toEqual(alone.slice(0, 20));
  });

  it("minTokens bans ends of output before, and lets stop strings pass", async () => {
    const own = fakeEngine({}, { eosTokenIds: [eighth] }).engine;
    const request = { promptIds, temperature: 0, minTokens: 15, maxTokens: 40 };
    const [banned] = await collect(own.generate(request));
    expect(banned!.tokenIds.slice(0, 14)).not.toContain(eighth);
    expect(banned!.tokenIds.length).toBeGreaterThan(14);
    const stop = [lettersOf(alone.slice(2, 4))];
    const { text } = await run({ stop, minTokens: 6, maxTokens: 6 });
    expect(text).toBe(lettersOf(alone.slice(0, 6)));
  });

  it("stop strings across tokens end it, with or without the string", async () => {
    const stop = lettersOf(alone.slice(4, 7));
    const before = lettersOf(alone.slice(0, 4));
    const { text, finish } = await run({ stop: ["never", stop], maxTokens: 20 });
    expect([text, finish?.reason, finish?.stop]).toEqual([before, "stop", stop]);
    expect((await run({ stop: [stop], maxTokens: 20, includeStop: true })).text).toBe(before + stop);
    const half = `${lettersOf(alone.slice(5, 7))}!`;
    expect((await run({ stop: [half], maxTokens: 7 })).text).toBe(lettersOf(alone.slice(0, 7)));
  });
});

describe("how tokens are drawn", () => {
  const promptIds = [1, 2, 3, 4, 5];
  const { engine, runner } = fakeEngine();
  const run = (more: Partial<GenerateRequest>) =>
    collect(engine.generate({ promptIds, ignoreEos: true, maxTokens: 16, ...more }), more.n ?? 1);

  it("a seed repeats, sequences of one request differ, and n = 3 is three seeds", async () => {
    const first = await run({ seed: 11, n: 3 });
    const second = await run({ seed: 11, n: 3 });
    expect(second.map(({ tokenIds }) => tokenIds)).toEqual(first.map(({ tokenIds }) => tokenIds));
    expect(first[0]!.tokenIds).not.toEqual(first[1]!.tokenIds);
    expect((await run({ seed: 13 }))[0]!.tokenIds).toEqual(first[2]!.tokenIds);
    expect((await run({}))[0]!.tokenIds).not.toEqual((await run({}))[0]!.tokenIds);
  });

  it("guesses leave seeded draws as they are", async () => {
    const drafting = fakeEngine({ vocabSize: 3 }, { draftTokens: 4, eosTokenIds: [] }).engine;
    const plain = fakeEngine({ vocabSize: 3 }, { eosTokenIds: [] }).engine;
    const request = { promptIds: [0, 1, 0, 1, 0], maxTokens: 50, seed: 3, logprobs: 1 };
    expect(await collect(drafting.generate(request))).toEqual(await collect(plain.generate(request)));
    expect(drafting.statistics().acceptedTokens).toBeGreaterThan(3);
    expect(drafting.statistics().steps).toBeLessThan(plain.statistics().steps);
  });

  it("n = 4 computes the prompt once, and copies its last page", async () => {
    const own = fakeEngine();
    await collect(own.engine.generate({ promptIds: [9, 8, 7, 6, 5, 4], n: 4, maxTokens: 1, seed: 1 }), 4);
    expect(own.runner.computedTokens).toBe(6 + 3);
    expect(own.engine.statistics()).toMatchObject({ pageCopies: 3, cachedTokens: 15, promptTokens: 24 });
  });

  it("logitBias and penalties change the logits before the draw", async () => {
    const [biased] = await run({ temperature: 0, logitBias: new Map([[7, 100]]) });
    expect(biased!.tokenIds).toEqual(new Array(16).fill(7));
    const both = { temperature: 0, logitBias: new Map([[7, 3]]), presencePenalty: 2, frequencyPenalty: 2 };
    const [penalised] = await run(both);
    expect(penalised!.tokenIds.filter((id) => id === 7).length).toBeLessThan(5);
    const [repeated] = await run({ temperature: 0, repetitionPenalty: 1e6 });
    expect(new Set([...promptIds, ...repeated!.tokenIds]).size).toBe(promptIds.length + 16);
  });

  it("logprobs come from the logits before penalties and biases, with the likeliest tokens", async () => {
    const plain = (await run({ temperature: 0, logprobs: 3 }))[0]!;
    const biased = (await run({ temperature: 0, logprobs: 3, logitBias: new Map([[7, 100]]) }))[0]!;
    expect(plain.logprobs.map(({ tokenId }) => tokenId)).toEqual(plain.tokenIds);
    for (const { tokenId, logprob, top } of plain.logprobs) {
      expect(top).toHaveLength(3);
      expect(top[0]).toEqual({ tokenId, logprob });
      expect(top[0]!.logprob).toBeGreaterThanOrEqual(top[1]!.logprob);
    }
    expect(biased.logprobs[0]!.tokenId).toBe(7);
    expect(biased.logprobs[0]!.top).toEqual(plain.logprobs[0]!.top);
    expect((await run({ logprobs: 0 }))[0]!.logprobs.every(({ top }) => top.length === 0)).toBe(true);
  });

  it("a constraint masks each draw, and one that throws fails its own request alone", async () => {
    const taken: number[] = [];
    const constraint = () => ({
      mask: (logits: Float32Array) => {
        for (let id = 0; id < logits.length; id += 2) logits[id] = Number.NEGATIVE_INFINITY;
      },
      accept: (tokenId: number) => {
        taken.push(tokenId);
      },
    });
    const [odd] = await run({ temperature: 0, constraint });
    expect(taken).toEqual(odd!.tokenIds);
    expect(odd!.tokenIds.every((id) => id % 2 === 1)).toBe(true);
    const broken = () => ({
      mask: () => undefined,
      accept: () => {
        throw new Error("no such state");
      },
    });
    const failing = run({ n: 2, constraint: broken });
    const other = run({ temperature: 0 });
    await expect(failing).rejects.toMatchObject({ name: "StepError", message: /no such state/ });
    expect((await other)[0]!.tokenIds).toEqual(runner.alone(promptIds, 16));
  });
});
