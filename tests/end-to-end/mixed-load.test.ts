import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createRandom, type Random } from "../../src/base/random.ts";
import type { Device } from "../../src/device/device.ts";
import { openDevice } from "../../src/device/open.ts";
import { Engine } from "../../src/engine/engine.ts";
import type { EngineOptions } from "../../src/engine/engine-types.ts";
import { openLanguageModel } from "../../src/engine/language-model.ts";
import { nextTurn } from "../../src/engine/next-turn.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { type Collected, collect } from "../fixtures/engine-fixture.ts";
import { type GoldenModel, goldenNames, openGolden } from "../golden/golden-models.ts";

interface Sizes {
  readonly cacheDtype: "f32" | "bf16";
  readonly cacheTokens: number;
  readonly maxDecodeRows: number;
  readonly maxChunkTokens: number;
}

/** Prompts that share beginnings, greedy and drawn, some with several sequences, some periodic so that guesses hit. */
function randomRequests(random: Random, vocabSize: number, count: number): GenerateRequest[] {
  const shared = Array.from({ length: 120 }, () => random.integer(vocabSize));
  return Array.from({ length: count }, (_, index) => {
    const own = Array.from({ length: 1 + random.integer(40) }, () => random.integer(vocabSize));
    const period = own.slice(0, 3);
    const tail = index % 4 === 0 ? [...period, ...period, ...period] : own;
    return {
      promptIds: [...shared.slice(0, random.integer(120)), ...tail],
      maxTokens: 10 + random.integer(80),
      temperature: index % 3 === 0 ? 0.8 : 0,
      topP: 0.9,
      seed: index,
      n: index % 5 === 0 ? 2 : 1,
      logprobs: index % 2 === 0 ? 2 : null,
      priority: random.integer(3),
      client: `client ${random.integer(3)}`,
    };
  });
}

describe.each(goldenNames)("%s", (name) => {
  let golden: GoldenModel;
  let device: Device;
  beforeAll(async () => {
    golden = openGolden(name);
    device = await openDevice({ kind: "cpu", threads: 2, poison: true });
  });
  afterAll(async () => {
    golden.close();
    await device.close();
  });

  async function withEngine<Result>(
    sizes: Sizes,
    options: Partial<EngineOptions>,
    use: (engine: Engine) => Promise<Result>,
  ): Promise<Result> {
    const model = await openLanguageModel(golden.folder, { device, maxContext: 256, ...sizes });
    try {
      return await use(new Engine({ runner: model.runner, tokenizer: null, eosTokenIds: [], ...options }));
    } finally {
      model.close();
    }
  }

  it("24 requests mixed, preempted, guessed and sharing pages: bit by bit what each gives alone", async () => {
    const requests = randomRequests(createRandom(3), golden.config.vocabSize, 24);
    const run = (engine: Engine, request: GenerateRequest) =>
      collect(engine.generate(request), request.n ?? 1);
    const alone = await withEngine(
      { cacheDtype: "bf16", cacheTokens: 256, maxDecodeRows: 1, maxChunkTokens: 256 },
      { prefixReuse: false },
      async (engine) => {
        const outputs = [];
        for (const request of requests) outputs.push(await run(engine, request));
        return outputs;
      },
    );
    const sizes: Sizes = { cacheDtype: "bf16", cacheTokens: 7 * 64, maxDecodeRows: 8, maxChunkTokens: 24 };
    await withEngine(sizes, { draftTokens: 3, maxRunning: 7, maxPrefillTokens: 31 }, async (engine) => {
      const running: Promise<Collected[]>[] = [];
      for (const request of requests) {
        running.push(run(engine, request));
        // The next one comes some steps later, so that a more urgent one finds others at work.
        for (let turn = 0; turn < 4; turn++) await nextTurn();
      }
      const mixed = await Promise.all(running);
      mixed.forEach((outputs, request) => {
        outputs.forEach((output, index) => {
          const { tokenIds, logprobs } = alone[request]![index]!;
          expect({ tokenIds: output.tokenIds, logprobs: output.logprobs }).toEqual({ tokenIds, logprobs });
        });
      });
      const { preemptions, cachedTokens, pageCopies, usedPages } = engine.statistics();
      expect(preemptions).toBeGreaterThan(2);
      expect(cachedTokens).toBeGreaterThan(200);
      expect(pageCopies).toBeGreaterThan(2);
      expect(usedPages).toBe(0);
    });
  });

  it("greedy ids are those of transformers, all prompts at once", async () => {
    const sizes: Sizes = { cacheDtype: "f32", cacheTokens: 1024, maxDecodeRows: 4, maxChunkTokens: 40 };
    await withEngine(sizes, {}, async (engine) => {
      const requests = golden.cases.map(({ prompt }) => ({
        promptIds: prompt,
        maxTokens: 24,
        temperature: 0,
      }));
      const outputs = await Promise.all(requests.map((request) => collect(engine.generate(request))));
      const ids = outputs.map(([output]) => output!.tokenIds);
      expect(ids).toEqual(golden.cases.map(({ greedyIds }) => greedyIds));
    });
  });
});
