// Models wide enough for attention in 16 bits, which the golden ones are not: the fused stages and the decode kernels that a published
// model runs, as a whole, against float64 with the cache's own rounding.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { bf16ToF32, f32ToBf16 } from "../../dist/base/bf16.js";
import { decodeToF32, encodeFromF32 } from "../../dist/base/convert.js";
import { createRandom } from "../../dist/base/random.js";
import { openDevice } from "../../dist/device/index.js";
import { openLanguageModel } from "../../dist/engine/language-model.js";
import { writeSafetensors } from "../../dist/formats/safetensors-writer.js";
import { referenceLogits } from "../../dist/models/reference.js";
import { decode } from "./golden.mjs";

const HIDDEN = 1024;
const VOCAB = 256;
const MLP = 256;
/** Of the logits' length, how far the device's may be: activations, queries and probabilities are rounded to bf16. */
const PART = 2e-2;

const models = [
  { heads: 16, latent: 512, nope: 128, value: 128, decode: "mlaDecodeFewRows_bf16_512" },
  { heads: 5, latent: 512, nope: 192, value: 256, decode: "mlaDecodeFewRows_bf16_512" },
  { heads: 40, latent: 256, nope: 64, value: 128, decode: "mlaDecodeFewRows_bf16_256" },
  { heads: 64, latent: 512, nope: 128, value: 128, whole: "mlaLayer_bf16" },
];

const configOf = ({ heads, latent, nope, value }) => ({
  ...{ model_type: "youtu", architectures: ["YoutuForCausalLM"], hidden_size: HIDDEN, vocab_size: VOCAB },
  ...{ num_hidden_layers: 2, num_attention_heads: heads, num_key_value_heads: heads, intermediate_size: MLP },
  ...{
    q_lora_rank: null,
    kv_lora_rank: latent,
    qk_nope_head_dim: nope,
    qk_rope_head_dim: 64,
    v_head_dim: value,
  },
  ...{ max_position_embeddings: 1024, rms_norm_eps: 1e-6, rope_theta: 1e4, rope_interleave: true },
  ...{ hidden_act: "silu", tie_word_embeddings: true, attention_bias: false, mlp_bias: false },
});

/** Names and shapes of a checkpoint's tensors; one number is a norm. */
function shapesOf({ heads, latent, nope, value }) {
  const shapes = { "model.embed_tokens.weight": [VOCAB, HIDDEN], "model.norm.weight": [HIDDEN] };
  for (const layer of [0, 1]) {
    const own = {
      "self_attn.q_proj": [heads * (nope + 64), HIDDEN],
      "self_attn.kv_a_proj_with_mqa": [latent + 64, HIDDEN],
      "self_attn.kv_a_layernorm": [latent],
      "self_attn.kv_b_proj": [heads * (nope + value), latent],
      "self_attn.o_proj": [HIDDEN, heads * value],
      ...{ input_layernorm: [HIDDEN], post_attention_layernorm: [HIDDEN] },
      ...{ "mlp.gate_proj": [MLP, HIDDEN], "mlp.up_proj": [MLP, HIDDEN], "mlp.down_proj": [HIDDEN, MLP] },
    };
    for (const [name, shape] of Object.entries(own)) shapes[`model.layers.${layer}.${name}.weight`] = shape;
  }
  return shapes;
}

/** Random tensors in bf16: matrices that keep their inputs' size, queries that make attention choose, norms around 1. */
function tensorsOf(model) {
  const random = createRandom(model.heads);
  return Object.entries(shapesOf(model)).map(([name, shape]) => {
    const count = shape.reduce((a, b) => a * b, 1);
    const scale = name.includes("q_proj") ? 3 : name.includes("embed") ? 8 : 1;
    const values =
      shape.length === 1
        ? random.normals(count, 0.2).map((value) => 1 + value)
        : random.normals(count, scale * shape[1] ** -0.5);
    return { name, dtype: "bf16", shape, data: encodeFromF32(values, "bf16") };
  });
}

/** Wraps what the device records, and collects the names of CUDA kernels. */
function watch(device) {
  const seen = new Set();
  const record = device.record.bind(device);
  device.record = (step) =>
    record((launch) => {
      const watched = (kernel, ...rest) => {
        seen.add(kernel.cuda?.function);
        launch(kernel, ...rest);
      };
      step(Object.assign(watched, { target: launch.target }));
    });
  return seen;
}

const distance = (got, expected) => {
  const square = (values) => values.reduce((sum, value) => sum + value * value, 0);
  return Math.sqrt(square(expected.map((value, i) => got[i] - value)) / square(expected));
};

let device;
before(async () => {
  device = await openDevice({ kind: "cuda", poison: true });
});
after(() => device.close());

describe("models of hidden size 1024, bf16 weights and cache, on CUDA against float64", () => {
  for (const shape of models) {
    const { heads, latent, nope, value } = shape;
    it(`h=${heads} ${latent}+64 ${nope} ${value}: prompt=5 steps=12 and prompt=80 steps=3`, async () => {
      const folder = mkdtempSync(join(tmpdir(), "wide-model-"));
      try {
        const tensors = tensorsOf(shape);
        writeFileSync(join(folder, "config.json"), JSON.stringify(configOf(shape)));
        await writeSafetensors(join(folder, "model.safetensors"), tensors);
        const byName = new Map(tensors.map(({ name, data }) => [name, decodeToF32(data, "bf16")]));
        const weights = { has: (name) => byName.has(name), get: (name) => byName.get(name) };
        const seen = watch(device);
        const options = { device, cacheDtype: "bf16", maxContext: 512, maxChunkTokens: 64, maxDecodeRows: 4 };
        const model = await openLanguageModel(folder, options);
        const random = createRandom(11);
        for (const [prompt, steps] of [
          [5, 12],
          [80, 3],
        ]) {
          const ids = Array.from({ length: prompt + steps - 1 }, () => random.integer(VOCAB));
          const { logits } = await decode(model, ids.slice(0, prompt), ids.slice(prompt), steps);
          const store = (x) => bf16ToF32(f32ToBf16(x));
          const positions = Array.from({ length: steps }, (_, i) => prompt - 1 + i);
          const truth = referenceLogits({ config: model.config, weights, ids, positions, store });
          assert.equal(logits.length, steps);
          for (const [step, row] of truth.entries()) {
            const part = distance(logits[step], row);
            assert.ok(part < PART, `prompt ${prompt}, step ${step}: ${part} of the logits' length off`);
          }
        }
        model.close();
        const { decode: attend, whole } = shape;
        const three = [`mlaPrologueAbsorb_bf16_${nope / 64}_`, attend, `mlaEpilogueProject_bf16_${latent}_`];
        const stages = whole === undefined ? three : [whole];
        for (const stage of stages) {
          assert.ok(
            [...seen].some((name) => name?.startsWith(stage)),
            `${stage} is not among ${[...seen].join(" ")}`,
          );
        }
      } finally {
        delete device.record;
        rmSync(folder, { recursive: true });
      }
    });
  }
});
