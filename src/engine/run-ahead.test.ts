import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testDevices } from "../../tests/fixtures/devices.ts";
import type { Device, Program } from "../device/device.ts";
import { openFolder } from "../files/byte-folder.ts";
import { openCheckpoint } from "../formats/checkpoint.ts";
import { readModelConfig } from "../formats/model-folder.ts";
import { loadModel } from "../models/model.ts";
import { openTokenizer } from "../text/open-tokenizer.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { Engine } from "./engine.ts";
import { languageModelOf } from "./language-model.ts";
import type { GenerateRequest } from "./request.ts";
import { isStepAhead, rowsAhead } from "./run-ahead.ts";
import type { DecodeRow } from "./runner-types.ts";

const sampling = { temperature: 0.7, topK: 0, topP: 1, minP: 0, seed: 5, step: 3 };
const greedy = { ...sampling, temperature: 0 };
const row: DecodeRow = { tokenId: 9, position: 2, slot: 30, pages: [7, 2], sampling, continues: true };
const sizes = { pageSize: 4, maxContext: 100 };

describe("the rows of the step ahead", () => {
  it("go on by a position, a slot and a draw, also to the next page", () => {
    const [same, next] = [rowsAhead([row], sizes), rowsAhead([{ ...row, position: 3, slot: 31 }], sizes)];
    expect(same).toEqual([
      { tokenId: -1, position: 3, slot: 31, pages: [7], sampling: { ...sampling, step: 4 } },
    ]);
    expect(next![0]).toMatchObject({ position: 4, slot: 8, pages: [7, 2] });
  });

  it.each([
    ["a sequence ends", [row, { ...row, continues: false }]],
    ["nobody says that it goes on", [{ ...row, continues: undefined }]],
    ["a row draws nothing", [{ ...row, sampling: null }]],
    ["the next page is not there", [{ ...row, position: 7 }]],
    ["the context ends", [{ ...row, position: 99, pages: Array.from({ length: 40 }, (_, i) => i) }]],
    ["there are many", Array.from({ length: 5 }, () => row)],
  ])("are none where %s", (_, rows) => {
    expect(rowsAhead(rows as DecodeRow[], sizes)).toBeNull();
  });

  it("are those of a call only to the token, the place, the pages and the draw", () => {
    const rows = rowsAhead([row], sizes)!;
    const ahead = { rows, tokenIds: Int32Array.of(11), drawn: Promise.resolve(Int32Array.of(0)) };
    const wanted = { ...rows[0]!, tokenId: 11, pages: [7, 2, 5] };
    expect(isStepAhead(ahead, [wanted])).toBe(true);
    expect(isStepAhead({ ...ahead, tokenIds: null }, [wanted])).toBe(false);
    expect(isStepAhead(ahead, [wanted, wanted])).toBe(false);
    const others = [
      { tokenId: 12 },
      { position: 4 },
      { slot: 30 },
      { pages: [8, 2] },
      { sampling: null },
      { sampling: { ...sampling, step: 5 } },
      { sampling: greedy },
    ];
    for (const change of others) expect(isStepAhead(ahead, [{ ...wanted, ...change }])).toBe(false);
    const likeliest = { ...ahead, rows: [{ ...rows[0]!, sampling: greedy }] };
    expect(isStepAhead(likeliest, [{ ...wanted, sampling: { ...greedy, step: 77, seed: 1 } }])).toBe(true);
  });
});

const folder = fileURLToPath(new URL("../../models/shakespeare-mla", import.meta.url));

/** An engine over the shipped model, and how often its device ran a program. */
async function openEngine(device: Device, tokenizer: Tokenizer, runsAhead: boolean) {
  const config = await readModelConfig(folder);
  const store = await openCheckpoint(openFolder(folder));
  const model = await loadModel(store, { device, config, maxLength: 256 });
  await store.close();
  const counts = { runs: 0 };
  const counting: Device = Object.create(device, {
    record: {
      value: (step: Parameters<Device["record"]>[0]): Program => {
        const program = device.record(step);
        const run = program.run.bind(program);
        program.run = () => {
          counts.runs++;
          run();
        };
        return program;
      },
    },
  });
  for (const name of ["limits", "memory"] as const) {
    Object.defineProperty(counting, name, { get: () => device[name] });
  }
  for (const name of ["allocate", "write", "read"] as const) {
    Object.defineProperty(counting, name, { value: device[name].bind(device) });
  }
  const language = languageModelOf(model, {
    ...{ device: counting, cacheDtype: "bf16", pageCount: 12, pageSize: 16, validVocab: config.vocabSize },
    ...{ maxDecodeRows: 3, maxChunkTokens: 32, runsAhead },
  });
  const engine = new Engine({ runner: language.runner, tokenizer, eosTokenIds: config.eosTokenIds });
  const close = async () => {
    await engine.close();
    language.close();
  };
  return { engine, counts, close };
}

async function textOf(engine: Engine, request: Omit<GenerateRequest, "promptIds">, promptIds: number[]) {
  let text = "";
  for await (const event of engine.generate({ promptIds, ...request })) {
    if ("text" in event) text += event.text;
  }
  return text;
}

const kinds = testDevices.filter(({ name }) => /relaxed, 2|all features|cuda/.test(name));

describe.each(kinds)("steps begun ahead, $name", ({ kind, open }) => {
  let device: Device;
  let tokenizer: Tokenizer;
  beforeAll(async () => {
    device = await open();
    tokenizer = await openTokenizer(folder);
  });
  afterAll(() => device.close());

  it("one request of 40 tokens: the same text, and no step for nothing", async () => {
    const texts: string[] = [];
    for (const runsAhead of [false, true]) {
      const { engine, counts, close } = await openEngine(device, tokenizer, runsAhead);
      const promptIds = [...tokenizer.encode("ROMEO:\n")];
      texts.push(await textOf(engine, { maxTokens: 40, temperature: 0.8, seed: 3 }, promptIds));
      expect(counts.runs).toBe(40);
      await close();
    }
    expect(texts[1]).toBe(texts[0]);
  });

  // Steps of two and four rows take a software adapter minutes to compile.
  it.skipIf(kind === "webgpu")(
    "three requests that come and go, one stopped by its reader, one by a text: the same texts",
    async () => {
      const results: string[][] = [];
      for (const runsAhead of [false, true]) {
        const { engine, close } = await openEngine(device, tokenizer, runsAhead);
        const ids = (text: string) => [...tokenizer.encode(text)];
        const left = engine.generate({ promptIds: ids("ACT"), maxTokens: 30, seed: 1 });
        await left.next();
        const texts = await Promise.all([
          textOf(engine, { maxTokens: 50, temperature: 0 }, ids("JULIET:\n")),
          textOf(engine, { maxTokens: 33, temperature: 1, seed: 8 }, ids("O, she doth teach the")),
          left.next().then(() => left.return?.()),
          textOf(engine, { maxTokens: 60, temperature: 0.5, seed: 2, stop: ["the"] }, ids("KING")),
        ]);
        results.push(texts.filter((text) => typeof text === "string"));
        results.at(-1)!.push(await textOf(engine, { maxTokens: 20, temperature: 0 }, ids("Now ")));
        await close();
      }
      expect(results[1]).toEqual(results[0]);
    },
  );
});
