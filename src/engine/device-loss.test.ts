import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { testDevicesOf } from "../../tests/fixtures/devices.ts";
import { collect, fakeEngine } from "../../tests/fixtures/engine-fixture.ts";
import { FakeRunner } from "../../tests/fixtures/fake-runner.ts";
import { DeviceLostError } from "../base/errors.ts";
import { openTokenizer } from "../text/open-tokenizer.ts";
import { Engine } from "./engine.ts";
import { openLanguageModel } from "./language-model.ts";

const greedy = { temperature: 0, ignoreEos: true } as const;
const sizes = {
  pageCount: 32,
  pageSize: 4,
  maxDecodeRows: 8,
  maxChunkTokens: 8,
  maxContext: 64,
  vocabSize: 26,
};

/** An engine whose device is lost at each of the calls `losses` of its runners, counted together, and its reopened runners. */
function losingEngine(losses: readonly number[], canReopen = true) {
  let calls = 0;
  const reopened: FakeRunner[] = [];
  const watch = (runner: FakeRunner) => {
    runner.onCall = () => {
      if (losses.includes(++calls)) throw new DeviceLostError("The device was lost.");
    };
    return runner;
  };
  const reopen = async () => {
    reopened.push(watch(new FakeRunner(sizes)));
    return reopened.at(-1)!;
  };
  const { engine, runner } = fakeEngine(sizes, canReopen ? { reopen } : {});
  watch(runner);
  return { engine, runner, reopened };
}

describe("after the loss of its device", () => {
  it.each([1, 2, 3, 4, 7, 12])(
    "at call %i an engine goes on with another: the same outputs",
    async (call) => {
      const { engine, runner, reopened } = losingEngine([call]);
      const prompts = [
        [3, 1, 4, 1, 5],
        [2, 2],
        [3, 1, 4, 1, 6, 9, 2],
      ];
      const outputs = await Promise.all(
        prompts.map(async (promptIds) => {
          const [one] = await collect(engine.generate({ ...greedy, promptIds, maxTokens: 12 }));
          return one!.tokenIds;
        }),
      );
      expect(outputs).toEqual(prompts.map((promptIds) => runner.alone(promptIds, 12)));
      expect(reopened).toHaveLength(1);
      expect(engine.statistics()).toMatchObject({ failedSteps: 1, finished: { length: 3 }, usedPages: 0 });
    },
  );

  it("it does so again and again, as long as a step succeeds between", async () => {
    const { engine, runner, reopened } = losingEngine([3, 6, 9]);
    const [one] = await collect(engine.generate({ ...greedy, promptIds: [1, 2], maxTokens: 9 }));
    expect(one!.tokenIds).toEqual(runner.alone([1, 2], 9));
    expect(reopened).toHaveLength(3);
  });

  it("requests end where the next step is lost too, or where there is no way to open one", async () => {
    const twice = losingEngine([3, 4]);
    const request = { ...greedy, promptIds: [1, 2], maxTokens: 9 };
    await expect(collect(twice.engine.generate(request))).rejects.toThrow(/step failed.*was lost/);
    expect(twice.reopened).toHaveLength(1);
    await collect(twice.engine.generate(request));
    await expect(collect(losingEngine([3], false).engine.generate(request))).rejects.toThrow("was lost");
  });
});

const folder = fileURLToPath(new URL("../../models/shakespeare-mla", import.meta.url));

describe.each(testDevicesOf("webgpu").slice(-1))("$name", ({ open }) => {
  it("destroyed while it generates: opened anew, the same text", async () => {
    const tokenizer = await openTokenizer(folder);
    const request = {
      promptIds: [...tokenizer.encode("ROMEO:\n")],
      maxTokens: 24,
      temperature: 0.8,
      seed: 4,
    };
    const texts: string[] = [];
    for (const isLost of [false, true]) {
      const devices = [await open()];
      const load = async () => {
        const model = await openLanguageModel(folder, { device: devices.at(-1)!, maxContext: 64 });
        return model.runner;
      };
      const reopen = async () => {
        devices.push(await open());
        return load();
      };
      const engine = new Engine({ runner: await load(), tokenizer, eosTokenIds: [], reopen });
      let [text, tokens] = ["", 0];
      for await (const event of engine.generate(request)) {
        if (!("text" in event)) continue;
        text += event.text;
        if (isLost && ++tokens === 9) (devices[0] as unknown as { gpu: GPUDevice }).gpu.destroy();
      }
      texts.push(text);
      expect(devices).toHaveLength(isLost ? 2 : 1);
      await engine.close();
      for (const device of devices) await device.close();
    }
    expect(texts[1]).toBe(texts[0]);
  });
});
