import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { openDevice } from "../../src/device/open.ts";
import { openLanguageModel } from "../../src/engine/language-model.ts";
import { promptLogits } from "../../src/engine/prompt-logits.ts";
import { parseModelConfig } from "../../src/formats/config.ts";
import { referenceLogits } from "../../src/models/reference.ts";
import { renderChat } from "../../src/text/chat-template.ts";
import { openTokenizer } from "../../src/text/open-tokenizer.ts";
import { fitsVocabulary } from "../../src/text/tokenizer.ts";
import { forcedLogits, greedyIds } from "./decoding.ts";
import { argmax, readTensors, worstDifference } from "./golden-models.ts";

const here = dirname(fileURLToPath(import.meta.url));
const folder = join(here, "..", "..", "models", "shakespeare-mla");
const config = parseModelConfig(JSON.parse(readFileSync(join(folder, "config.json"), "utf8")));

/** Greedy decoding by transformers in float32; written by tools/train-shipped-model.py. */
const golden = readTensors(join(here, "shipped-model", "golden.safetensors"));
const text: { prompt: string; promptIds: number[]; greedyIds: number[]; greedyText: string } = JSON.parse(
  readFileSync(join(here, "shipped-model", "text.json"), "utf8"),
);

function rows(name: string): Float32Array[] {
  const values = golden.get(name) as Float32Array;
  const size = config.vocabSize;
  return Array.from({ length: values.length / size }, (_, row) =>
    values.subarray(row * size, (row + 1) * size),
  );
}

describe("the model in models/shakespeare-mla", () => {
  it("takes at most 10 MB and caches at least 4 times less than every head's keys and values", () => {
    const sizes = readdirSync(folder).map((file) => statSync(join(folder, file)).size);
    expect(sizes.reduce((sum, size) => sum + size)).toBeLessThanOrEqual(10e6);
    const { heads, kvLoraRank, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = config.attention;
    expect([kvLoraRank, qkRopeHeadDim]).toEqual([256, 32]);
    const everyHead = heads * (qkNopeHeadDim + qkRopeHeadDim + vHeadDim);
    expect(everyHead / (kvLoraRank + qkRopeHeadDim)).toBeGreaterThanOrEqual(4);
  });

  it("has reference logits equal to transformers', prompt=126 greedy=48", () => {
    const { promptIds, greedyIds } = text;
    expect([promptIds.length, greedyIds.length]).toEqual([126, 48]);
    const tensors = readTensors(join(folder, "model.safetensors"));
    const weights = {
      has: (name: string) => tensors.has(name),
      get: (name: string) => tensors.get(name) as Float32Array,
    };
    const ids = [...promptIds, ...greedyIds.slice(0, -1)];
    const positions = Array.from({ length: 16 + 47 }, (_, i) => 126 - 16 + i);
    const logits = referenceLogits({ config, weights, ids, positions });
    const expected = [...rows("prompt_logits_last_16"), ...rows("greedy_logits").slice(1)];
    expect(expected).toHaveLength(positions.length);
    expect(Math.max(...logits.map((row, i) => worstDifference(row, expected[i]!)))).toBeLessThan(1e-3);
    expect(logits.slice(15).map(argmax)).toEqual(greedyIds);
  });

  it("has logits within 2e-3 of transformers' on the CPU device with an f32 cache, greedy ids equal", async () => {
    const device = await openDevice({ kind: "cpu", threads: 2, poison: true });
    const model = await openLanguageModel(folder, { device, cacheDtype: "f32", maxContext: 256 });
    const { promptIds, greedyIds: expected } = text;
    const logits = [
      ...(await promptLogits(model.runner, promptIds, 16)),
      ...(await forcedLogits(model, promptIds, expected)),
    ];
    const wanted = [...rows("prompt_logits_last_16"), ...rows("greedy_logits")];
    expect(logits).toHaveLength(wanted.length);
    expect(Math.max(...logits.map((row, i) => worstDifference(row, wanted[i]!)))).toBeLessThan(2e-3);
    expect(await greedyIds(model, promptIds, 48)).toEqual(expected);
    model.close();
    await device.close();
  });

  it("has a tokenizer that gives transformers' ids and text", async () => {
    const tokenizer = await openTokenizer(folder);
    fitsVocabulary(tokenizer, config.vocabSize);
    expect(Array.from(tokenizer.encode(text.prompt))).toEqual(text.promptIds);
    expect(tokenizer.decode(text.greedyIds)).toBe(text.greedyText);
    expect(tokenizer.decode(text.promptIds)).toBe(text.prompt);
    expect(Array.from(golden.get("prompt_ids")!)).toEqual(text.promptIds);
    expect(Array.from(golden.get("greedy_ids")!)).toEqual(text.greedyIds);
  });

  it("has a chat template that makes a dialogue of a conversation", async () => {
    const { chat } = await openTokenizer(folder);
    const messages = [
      { role: "user", content: "Good morrow, sir." },
      { role: "assistant", content: "Good morrow." },
      { role: "user", content: "What news?" },
    ];
    expect(renderChat(chat!, { messages })).toBe(
      "<bos>JULIET:\nGood morrow, sir.<eos>\n\nROMEO:\nGood morrow.<eos>\n\nJULIET:\nWhat news?<eos>\n\nROMEO:\n",
    );
  });
});
