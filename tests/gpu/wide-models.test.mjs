// Whole models wide enough for the 16-bit path (queries, attended latents and the activations of many rows in bf16) against float64:
// random weights in the published spellings, prompts in one chunk and in several, and decoding alone, in small and in large batches.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { bf16ToF32, f32ToBf16 } from "../../dist/base/bf16.js";
import { decodeToF32, encodeFromF32 } from "../../dist/base/convert.js";
import { createRandom } from "../../dist/base/random.js";
import { PagedLatentCache } from "../../dist/cache/paged-latent-cache.js";
import { openDevice } from "../../dist/device/index.js";
import { openLanguageModel } from "../../dist/engine/language-model.js";
import { promptLogits } from "../../dist/engine/prompt-logits.js";
import { parseModelConfig } from "../../dist/formats/config.js";
import { writeSafetensors } from "../../dist/formats/safetensors-writer.js";
import { requestWeights } from "../../dist/models/model-weights.js";
import { referenceLogits } from "../../dist/models/reference.js";

const common = {
  ...{
    vocab_size: 500,
    hidden_act: "silu",
    max_position_embeddings: 512,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
  },
  ...{ rope_scaling: null, tie_word_embeddings: false, num_hidden_layers: 2 },
};
const wide = { kv_lora_rank: 512, qk_nope_head_dim: 128, qk_rope_head_dim: 64, v_head_dim: 128 };
const configs = {
  "youtu, 16 heads, latents of 512, compressed queries": {
    ...{
      ...common,
      ...wide,
      model_type: "youtu",
      hidden_size: 1024,
      intermediate_size: 1408,
      rope_interleave: true,
    },
    ...{ num_attention_heads: 16, num_key_value_heads: 16, q_lora_rank: 768 },
  },
  "youtu, 32 heads, latents of 256": {
    ...{
      ...common,
      ...wide,
      model_type: "youtu",
      hidden_size: 1088,
      intermediate_size: 1000,
      rope_interleave: true,
    },
    ...{ kv_lora_rank: 256, num_attention_heads: 32, num_key_value_heads: 32, q_lora_rank: null },
  },
  "minicpm3, 40 heads, latents of 256 + 32": {
    ...{ ...common, model_type: "minicpm3", hidden_size: 1280, intermediate_size: 1344, scale_emb: 12 },
    ...{
      num_attention_heads: 40,
      num_key_value_heads: 40,
      q_lora_rank: 384,
      scale_depth: 1.4,
      dim_model_base: 256,
    },
    ...{ kv_lora_rank: 256, qk_nope_head_dim: 64, qk_rope_head_dim: 32 },
  },
  "deepseek_v2, 16 heads, 16 experts": {
    ...{ ...common, ...wide, model_type: "deepseek_v2", hidden_size: 1024, intermediate_size: 1408 },
    ...{ num_attention_heads: 16, num_key_value_heads: 16, q_lora_rank: null, moe_intermediate_size: 352 },
    ...{ n_shared_experts: 2, n_routed_experts: 16, num_experts_per_tok: 4, moe_layer_freq: 1 },
    ...{ first_k_dense_replace: 1, norm_topk_prob: false, scoring_func: "softmax", topk_method: "greedy" },
    ...{ n_group: 1, topk_group: 1, routed_scaling_factor: 1 },
  },
};

/** Every tensor that a model of `config` asks for, random, as a checkpoint has it. */
function randomTensors(config) {
  const random = createRandom(1);
  const tensors = [];
  const add = (name, dtype, shape) => {
    const count = shape.reduce((a, b) => a * b);
    const values = random.normals(count, shape.length > 1 ? shape.at(-1) ** -0.5 : 0.2);
    if (shape.length === 1) for (let i = 0; i < count; i++) values[i] += 1;
    tensors.push({ name, dtype, shape, data: encodeFromF32(values, dtype) });
  };
  const nowhere = (bytes, label) => ({
    bytes,
    label,
    slice: (_, size) => nowhere(size, label),
    free: () => {},
  });
  requestWeights(
    {
      has: (name) => !name.includes("gate_up_proj"),
      vector: (name, length) => {
        add(name, "f32", [length]);
        return nowhere(4 * length, name);
      },
      matrix: (name, rows, columns) => {
        add(name, "bf16", [rows, columns]);
        return { buffer: nowhere(2 * rows * columns, name), dtype: "bf16", rows, columns };
      },
      stack: (names, shape, label) => {
        const shapes = names.map((_, i) => (typeof shape[0] === "number" ? shape : shape[i]));
        names.forEach((name, i) => {
          add(name, "bf16", shapes[i]);
        });
        return { buffer: nowhere(0, label), dtype: "bf16", rows: 1, columns: shapes[0].at(-1) };
      },
    },
    config,
  );
  return tensors;
}

/** ‖got − expected‖ / ‖expected‖; NaN counts as infinite. */
function distance(got, expected) {
  let [off, all] = [0, 0];
  expected.forEach((value, i) => {
    off += (got[i] - value) ** 2;
    all += value ** 2;
  });
  const share = Math.sqrt(off / all);
  return Number.isNaN(share) ? Number.POSITIVE_INFINITY : share;
}

const greedy = { temperature: 0, topK: 0, topP: 1, minP: 0, seed: 0, step: 0 };

/** One decoding step of `lengths.length` sequences, each the first ids; gives each row's logits. */
async function decodeAmong({ runner }, ids, lengths) {
  const cache = new PagedLatentCache(runner.pageCount, runner.pageSize);
  const slots = new Int32Array(runner.maxChunkTokens);
  const rows = [];
  for (const length of lengths) {
    const sequence = cache.create();
    cache.reserve(sequence, length + 1);
    cache.append(sequence, length, slots);
    await runner.prefill({
      tokenIds: ids.slice(0, length),
      position: 0,
      slots,
      pages: sequence.pages,
      sampling: null,
    });
    cache.append(sequence, 1, slots);
    rows.push({
      tokenId: ids[length],
      position: length,
      slot: slots[0],
      pages: [...sequence.pages],
      sampling: greedy,
    });
  }
  const logits = [];
  const looks = new Map(
    rows.map((_, i) => [
      i,
      (row) => {
        logits[i] = row.slice();
      },
    ]),
  );
  const drawn = await runner.decode(rows, looks);
  return { logits, drawn };
}

/**
 * Experts are chosen by scores that carry the roundings: where two are nearly equal another one runs, and the row is far off. So of a
 * mixture an eighth of the rows may be.
 */
function checkRows(distances, most, isMixture) {
  const sorted = [...distances].sort((a, b) => a - b);
  const at = isMixture ? Math.floor((sorted.length - 1) * 0.875) : sorted.length - 1;
  assert.ok(sorted[at] < most, `rows are ${sorted.map((one) => one.toExponential(1)).join(", ")} off`);
  return sorted[at];
}

const kind = process.env.FLASHMLA_TEST_DEVICE ?? "cuda";
let device;
before(async () => {
  device = await openDevice({ kind, poison: true });
});
after(() => device.close());

const LENGTH = 96;
/** Words of the models to run, where a process is to run some alone: their truth takes long to compute. */
const wanted = process.env.FLASHMLA_TEST_MODEL ?? "";
for (const [name, json] of Object.entries(configs).filter(([one]) => one.includes(wanted))) {
  describe(`${name}, in bf16 against float64`, () => {
    const config = parseModelConfig(json);
    const isMixture = config.experts !== null;
    const folder = mkdtempSync(join(tmpdir(), "flashmla-wide-"));
    const ids = Array.from({ length: LENGTH }, (_, i) => (i * 7919 + 13) % config.vocabSize);
    let expected;
    let model;
    before(async () => {
      const tensors = randomTensors(config);
      writeFileSync(join(folder, "config.json"), JSON.stringify(json));
      await writeSafetensors(join(folder, "model.safetensors"), tensors);
      const values = new Map(tensors.map(({ name: key, dtype, data }) => [key, decodeToF32(data, dtype)]));
      const weights = { has: (key) => values.has(key), get: (key) => values.get(key) };
      const positions = Array.from({ length: LENGTH }, (_, i) => i);
      const store = (value) => bf16ToF32(f32ToBf16(value));
      expected = referenceLogits({ config, weights, ids, positions, store });
      const sizes = { maxContext: 256, maxChunkTokens: 192, maxDecodeRows: 40, cacheTokens: 40 * 256 };
      model = await openLanguageModel(folder, { device, cacheDtype: "bf16", ...sizes });
    });
    after(() => {
      model?.close();
      rmSync(folder, { recursive: true });
    });

    it(`prompt of ${LENGTH}`, async () => {
      const got = await promptLogits(model.runner, ids, LENGTH);
      const far = checkRows(
        got.map((row, i) => distance(row, expected[i])),
        0.02,
        isMixture,
      );
      console.log(`${name}: prompt ${far.toExponential(1)} off`);
    });

    it("without cuBLASLt: a note, and the prompt in float32", { skip: kind !== "cuda" }, async () => {
      const known = process.env.FLASHMLA_CUBLASLT;
      process.env.FLASHMLA_CUBLASLT = "/nowhere/libcublasLt.so";
      const bare = await openDevice({ kind, poison: true });
      try {
        const notes = [];
        const sizes = { maxContext: 256, maxChunkTokens: 192, onNote: (note) => notes.push(note) };
        const exact = await openLanguageModel(folder, { device: bare, ...sizes });
        assert.match(notes.join(), /^Prompts are computed in float32, several times slower: .*\/nowhere/);
        const got = await promptLogits(exact.runner, ids, LENGTH);
        checkRows(
          got.map((row, i) => distance(row, expected[i])),
          0.02,
          isMixture,
        );
        exact.close();
      } finally {
        await bare.close();
        if (known === undefined) delete process.env.FLASHMLA_CUBLASLT;
        else process.env.FLASHMLA_CUBLASLT = known;
      }
    });

    for (const batch of [1, 5, 8, 13, 33]) {
      it(`decoding, batch=${batch}`, async () => {
        const lengths = Array.from({ length: batch }, (_, i) => LENGTH - 1 - ((i * 37) % (LENGTH - 1)));
        const { logits, drawn } = await decodeAmong(model, ids, lengths);
        const far = checkRows(
          logits.map((row, i) => distance(row, expected[lengths[i]])),
          0.02,
          isMixture,
        );
        drawn.forEach((id, i) => {
          assert.equal(logits[i][id], Math.max(...logits[i]), "the drawn id has the largest logit");
        });
        console.log(`${name}: batch ${batch} ${far.toExponential(1)} off`);
      });
    }
  });
}
