import { describe, expect, it } from "vitest";
import { collect, fakeEngine } from "../../tests/fixtures/engine-fixture.ts";
import type { Engine } from "./engine.ts";
import type { GenerateEvent } from "./events.ts";
import { nextTurn } from "./next-turn.ts";
import type { GenerateRequest } from "./request.ts";
import type { RequestSummary, SequenceTimings, StepTimings } from "./statistics.ts";

const promptIds = [3, 1, 4, 1, 5];
const greedy = { promptIds, temperature: 0, ignoreEos: true } as const;

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await nextTurn();
}

function expectIdle(engine: Engine): void {
  const { running, waiting, paused, usedPages } = engine.statistics();
  expect({ running, waiting, paused, usedPages }).toEqual({
    running: 0,
    waiting: 0,
    paused: 0,
    usedPages: 0,
  });
}

describe("cancellation", () => {
  it.each([0, 1, 2, 3, 5, 9])(
    "by signal after %i turns: the iteration rejects with its reason",
    async (count) => {
      const { engine } = fakeEngine();
      const controller = new AbortController();
      const aborted = collect(engine.generate({ ...greedy, n: 2, signal: controller.signal }), 2);
      const other = collect(engine.generate({ ...greedy, maxTokens: 20 }));
      const rejects = expect(aborted).rejects.toThrow("enough");
      await turns(count);
      controller.abort(new Error("enough"));
      await rejects;
      await other;
      await turns(1);
      expectIdle(engine);
      expect(engine.statistics().finished).toMatchObject({ abort: 2, length: 1 });
    },
  );

  it.each([1, 2, 3, 6])("during call %i of the runner: the step goes on for the others", async (call) => {
    const { engine, runner } = fakeEngine();
    const controller = new AbortController();
    let calls = 0;
    runner.onCall = () => {
      if (++calls === call) controller.abort(new Error("enough"));
      return nextTurn();
    };
    const aborted = collect(engine.generate({ ...greedy, n: 2, signal: controller.signal }), 2);
    const rejects = expect(aborted).rejects.toThrow("enough");
    const [other] = await collect(engine.generate({ ...greedy, promptIds: [2, 2], maxTokens: 20 }));
    await rejects;
    expect(other!.tokenIds).toEqual(runner.alone([2, 2], 20));
    expect(engine.statistics()).toMatchObject({ failedSteps: 0, finished: { abort: 2 } });
    expectIdle(engine);
  });

  it("by leaving the loop, and by a signal that was aborted before", async () => {
    const { engine } = fakeEngine();
    for await (const event of engine.generate({ ...greedy, n: 3 })) if (event.index === 1) break;
    await turns(2);
    expectIdle(engine);
    const signal = AbortSignal.abort(new Error("too late"));
    expect(() => engine.generate({ ...greedy, signal })).toThrow("too late");
  });

  it("a request that nobody reads holds no other back, and its pages can be taken", async () => {
    const { engine, runner } = fakeEngine({ pageCount: 16 }, { maxUnreadTokens: 4 });
    const unread = engine.generate({ ...greedy, maxTokens: 59 });
    await turns(30);
    expect(engine.statistics()).toMatchObject({ running: 0, paused: 1, completionTokens: 4 });
    await collect(engine.generate({ ...greedy, maxTokens: 59 }));
    expect(engine.statistics()).toMatchObject({ paused: 1, preemptions: 1 });
    const [output] = await collect(unread);
    expect(output!.tokenIds).toEqual(runner.alone(promptIds, 59));
    expectIdle(engine);
  });
});

describe("a step that fails", () => {
  it("fails the requests in it with its cause, not those that wait, and the next ones work", async () => {
    const { engine, runner } = fakeEngine({}, { maxRunning: 2 });
    const requests = [0, 1, 2].map(() => collect(engine.generate({ ...greedy, maxTokens: 12 })));
    const settled = Promise.allSettled(requests);
    await turns(4);
    runner.failure = new Error("device lost");
    const [first, second, third] = await settled;
    for (const failed of [first, second]) {
      expect(failed).toMatchObject({ status: "rejected", reason: { name: "StepError" } });
      expect((failed as PromiseRejectedResult).reason.cause.message).toBe("device lost");
    }
    expect(third!.status).toBe("fulfilled");
    const [again] = await collect(engine.generate({ ...greedy, maxTokens: 12 }));
    expect(again!.tokenIds).toEqual(runner.alone(promptIds, 12));
    expect(engine.statistics()).toMatchObject({ failedSteps: 1, finished: { error: 2, length: 2 } });
    expectIdle(engine);
  });

  it("forgets the prompts it may have spoilt", async () => {
    const { engine, runner } = fakeEngine();
    await collect(engine.generate({ ...greedy, maxTokens: 2 }));
    expect(engine.statistics().reusablePages).toBe(2);
    runner.failure = new Error("device lost");
    await expect(collect(engine.generate({ ...greedy, promptIds: [7] }))).rejects.toThrow("device lost");
    expect(engine.statistics().reusablePages).toBe(0);
  });

  it("an id that the tokenizer does not know fails its own request", async () => {
    const { engine } = fakeEngine({ vocabSize: 30 });
    const wrong = collect(engine.generate({ ...greedy, logitBias: new Map([[29, 100]]) }));
    const right = collect(engine.generate({ ...greedy, logitBias: new Map([[2, 100]]), maxTokens: 8 }));
    await expect(wrong).rejects.toThrow("token id must be an integer from 0 to 25, got 29");
    expect((await right)[0]!.text).toBe("cccccccc");
  });
});

describe("requests that are refused", () => {
  const cases: [string, Partial<GenerateRequest>, string, string][] = [
    ["no prompt", { promptIds: [] }, "RangeError", "promptIds must have at least one id"],
    ["an id past the vocabulary", { promptIds: [26] }, "RangeError", "from 0 to 25, got 26"],
    ["a prompt that is no array", { promptIds: 3 as unknown as number[] }, "TypeError", "promptIds"],
    ["a prompt as long as the context", { promptIds: new Array(64).fill(1) }, "ContextLengthError", "64"],
    ["output past the context", { maxTokens: 60 }, "ContextLengthError", "with 60 of output"],
    ["minTokens above maxTokens", { minTokens: 3, maxTokens: 2 }, "RangeError", "minTokens"],
    ["a negative temperature", { temperature: -1 }, "RangeError", "temperature"],
    [
      "a temperature that is no number",
      { temperature: "1" as unknown as number },
      "TypeError",
      "temperature",
    ],
    ["topP above 1", { topP: 1.1 }, "RangeError", "topP"],
    ["an absurd n", { n: 1e9 }, "RangeError", "n must be an integer from 1 to 128"],
    ["no repetition penalty", { repetitionPenalty: 0 }, "RangeError", "repetitionPenalty"],
    ["a bias for no token", { logitBias: new Map([[99, 1]]) }, "RangeError", "logitBias"],
    ["an infinite bias", { logitBias: new Map([[9, Number.POSITIVE_INFINITY]]) }, "RangeError", "logitBias"],
    ["an empty stop string", { stop: [""] }, "RangeError", "stop"],
    ["too many logprobs", { logprobs: 21 }, "RangeError", "logprobs"],
    ["too many for the queue", { n: 12 }, "QueueFullError", "queue is full"],
  ];
  it.each(cases)("%s", (_name, wrong, name, message) => {
    const { engine } = fakeEngine({}, { maxWaiting: 3 });
    const refused = expect(() => engine.generate({ ...greedy, ...wrong }));
    refused.toThrow(expect.objectContaining({ name }));
    expect(() => engine.generate({ ...greedy, ...wrong })).toThrow(message);
    expectIdle(engine);
  });

  it("stop strings without a tokenizer, and limits the runner cannot serve", () => {
    const { engine } = fakeEngine({}, { tokenizer: null });
    expect(() => engine.generate({ ...greedy, stop: ["a"] })).toThrow("stop must be empty");
    expect(() => fakeEngine({}, { maxRunning: 9 })).toThrow("maxRunning");
    expect(() => fakeEngine({}, { draftTokens: -1 })).toThrow("draftTokens");
  });

  it("a queue that is full takes requests again when it has emptied", async () => {
    const { engine } = fakeEngine({}, { maxRunning: 1, maxWaiting: 2 });
    const accepted = [1, 2, 3].map(() => collect(engine.generate({ ...greedy, maxTokens: 3 })));
    expect(() => engine.generate(greedy)).toThrow(expect.objectContaining({ name: "QueueFullError" }));
    await Promise.all(accepted);
    expect(await collect(engine.generate({ ...greedy, maxTokens: 3 }))).toHaveLength(1);
  });
});

describe("the end of an engine", () => {
  it("drain: what is at hand ends, nothing new is taken", async () => {
    const { engine } = fakeEngine();
    const atHand = collect(engine.generate({ ...greedy, maxTokens: 9 }));
    await turns(3);
    const drained = engine.drain();
    expect(() => engine.generate(greedy)).toThrow(expect.objectContaining({ name: "EngineClosedError" }));
    await drained;
    expectIdle(engine);
    expect((await atHand)[0]!.finish?.reason).toBe("length");
    await engine.drain();
  });

  it.each([0, 1, 4])("close after %i turns: what is at hand is cut, all pages come back", async (count) => {
    const { engine } = fakeEngine();
    const cut = collect(engine.generate({ ...greedy, n: 2 }), 2);
    const rejects = expect(cut).rejects.toMatchObject({ name: "EngineClosedError" });
    await turns(count);
    await engine.close();
    await rejects;
    expectIdle(engine);
  });
});

it("an observer hears of every step, output and end", async () => {
  const steps: StepTimings[] = [];
  const ends: SequenceTimings[] = [];
  const requests: RequestSummary[] = [];
  let [firstTokens, laterTokens] = [0, 0];
  const { engine } = fakeEngine(
    {},
    {
      observer: {
        stepEnd: (step) => steps.push(step),
        sequenceEnd: (end) => ends.push(end),
        requestEnd: (summary) => requests.push(summary),
        firstToken: () => firstTokens++,
        nextTokens: (_seconds, tokens) => {
          laterTokens += tokens;
        },
      },
    },
  );
  const events: GenerateEvent[] = [];
  for await (const event of engine.generate({ ...greedy, maxTokens: 6 })) events.push(event);
  expect(steps.map(({ decodeRows, prefillTokens }) => [decodeRows, prefillTokens])).toEqual([
    [0, 5],
    ...new Array(5).fill([1, 0]),
  ]);
  expect([firstTokens, laterTokens]).toEqual([1, 5]);
  expect(ends).toHaveLength(1);
  expect(ends[0]).toMatchObject({ reason: "length", promptTokens: 5, cachedTokens: 0, completionTokens: 6 });
  const { queueSeconds, firstTokenSeconds, decodeSeconds, totalSeconds } = ends[0]!;
  expect(queueSeconds!).toBeLessThanOrEqual(firstTokenSeconds!);
  expect(firstTokenSeconds! + decodeSeconds).toBeLessThanOrEqual(totalSeconds);
  expect(events.filter(({ kind }) => kind === "tokens")).toHaveLength(6);
  expect(engine.statistics()).toMatchObject({ steps: 6, prefillTokens: 5, completionTokens: 6 });
  await collect(engine.generate({ ...greedy, n: 3, maxTokens: 2 }), 3);
  const left = engine.generate({ ...greedy, n: 2 });
  await left.next();
  await left.return?.();
  await turns(2);
  expect(requests).toEqual([
    { n: 1, maxTokens: 6, longestOutput: 6 },
    { n: 3, maxTokens: 2, longestOutput: 2 },
    { n: 2, maxTokens: null, longestOutput: expect.any(Number) },
  ]);
  expect(ends).toHaveLength(6);
});
