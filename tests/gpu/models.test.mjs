// Whole models on CUDA: the tiny ones of all types against transformers' logits, and the shipped one against the CPU's text.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { openDevice } from "../../dist/device/index.js";
import { openLanguageModel } from "../../dist/engine/language-model.js";
import { promptLogits } from "../../dist/engine/prompt-logits.js";
import { decode, goldenFolders, readTensors, rowsOf, worstDifference } from "./golden.mjs";

let device;
before(async () => {
  device = await openDevice({ kind: "cuda", poison: true });
});
after(() => device.close());

for (const [name, folder] of goldenFolders()) {
  describe(`${name} on CUDA against transformers`, () => {
    const { vocab_size: vocab } = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));
    const golden = readTensors(join(folder, "golden.safetensors"));
    for (const index of [0, 1, 2, 3]) {
      const prompt = [...golden[`case${index}.input_ids`]];
      const ids = [...golden[`case${index}.greedy_ids`]];
      it(`prompt=${prompt.length} greedy=24 cache=f32: logits within 2e-3, ids equal`, async () => {
        const options = { device, cacheDtype: "f32", maxContext: 256, maxChunkTokens: 48, maxDecodeRows: 4 };
        const model = await openLanguageModel(folder, options);
        const expected = rowsOf(golden[`case${index}.prompt_logits`], vocab);
        const got = await promptLogits(model.runner, prompt, expected.length);
        const forced = await decode(model, prompt, ids, ids.length);
        const drawn = await decode(model, prompt, null, ids.length);
        model.close();
        const worst = worstDifference(got, expected);
        assert.ok(worst < 2e-3, `prompt logits are ${worst} off`);
        const far = worstDifference(forced.logits, rowsOf(golden[`case${index}.greedy_logits`], vocab));
        assert.ok(far < 2e-3, `step logits are ${far} off`);
        assert.deepEqual(drawn.drawn, ids);
      });
    }
    it("bf16 cache, chunks of 256: the CPU's own ids", async () => {
      const prompt = [...golden["case2.input_ids"]];
      const options = { cacheDtype: "bf16", maxContext: 256, maxChunkTokens: 256, maxDecodeRows: 4 };
      const cpu = await openDevice({ kind: "cpu" });
      const drawn = [];
      for (const one of [device, cpu]) {
        const model = await openLanguageModel(folder, { ...options, device: one });
        drawn.push((await decode(model, prompt, null, 16)).drawn);
        model.close();
      }
      await cpu.close();
      assert.deepEqual(drawn[0], drawn[1]);
    });
  });
}

describe("the shipped model on CUDA", () => {
  const folder = new URL("../../models/shakespeare-mla", import.meta.url).pathname;
  const text = JSON.parse(
    readFileSync(new URL("../golden/shipped-model/text.json", import.meta.url), "utf8"),
  );
  it("greedy ids are transformers', and the CPU's over 256 tokens; no memory stays", async () => {
    const before = device.memory.usedBytes;
    const cpu = await openDevice({ kind: "cpu" });
    const drawn = [];
    for (const one of [device, cpu]) {
      const model = await openLanguageModel(folder, { device: one, maxContext: 512 });
      drawn.push((await decode(model, text.promptIds, null, 256)).drawn);
      model.close();
    }
    await cpu.close();
    assert.deepEqual(drawn[0].slice(0, text.greedyIds.length), text.greedyIds);
    assert.deepEqual(drawn[0], drawn[1]);
    assert.equal(device.memory.usedBytes, before);
  });
});
