// Golden models read and run for the tests in this folder, which have the built package alone.
import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { decodeToF32 } from "../../dist/base/convert.js";
import { PagedLatentCache } from "../../dist/cache/paged-latent-cache.js";

const packed = new URL("../golden/models/", import.meta.url).pathname;

/** Every tensor of a safetensors file of BF16, F32 and I32 as numbers. */
export function readTensors(path) {
  const file = readFileSync(path);
  const start = 8 + Number(file.readBigUInt64LE(0));
  const tensors = {};
  for (const [name, entry] of Object.entries(JSON.parse(file.toString("utf8", 8, start)))) {
    if (name === "__metadata__") continue;
    const [from, to] = entry.data_offsets;
    const bytes = Uint8Array.from(file.subarray(start + from, start + to));
    if (entry.dtype === "I32") tensors[name] = new Int32Array(bytes.buffer);
    else tensors[name] = decodeToF32(bytes, entry.dtype === "F32" ? "f32" : "bf16");
  }
  return tensors;
}

/** Folders of the tiny models at hand: all six where FLASHMLA_GOLDEN names them, else the two that the repository packs. */
export function goldenFolders() {
  const folder = process.env.FLASHMLA_GOLDEN && join(process.env.FLASHMLA_GOLDEN, "models");
  if (folder && existsSync(folder)) return readdirSync(folder).map((name) => [name, join(folder, name)]);
  return readdirSync(packed).map((name) => {
    const target = mkdtempSync(join(tmpdir(), `${name}-`));
    for (const file of readdirSync(join(packed, name))) {
      const content = readFileSync(join(packed, name, file));
      const zipped = file.endsWith(".gz");
      writeFileSync(join(target, zipped ? file.slice(0, -3) : file), zipped ? gunzipSync(content) : content);
    }
    return [name, target];
  });
}

/** Rows [n, vocab] of a flat array. */
export const rowsOf = (values, vocab) =>
  Array.from({ length: values.length / vocab }, (_, i) => values.subarray(i * vocab, (i + 1) * vocab));

export const argmax = (values) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);

/** The largest absolute difference of two lists of rows; NaN counts as infinite. */
export function worstDifference(got, expected) {
  let worst = 0;
  for (const [row, values] of expected.entries()) {
    for (let i = 0; i < values.length; i++) {
      const difference = Math.abs(got[row][i] - values[i]);
      if (!(difference <= worst)) worst = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;
    }
  }
  return worst;
}

const greedy = { temperature: 0, topK: 0, topP: 1, minP: 0, seed: 0, step: 0 };

/** The logits of the prompt's last row and of each step, fed `ids`, and what is drawn when fed its own draws (`ids` null). */
export async function decode({ runner }, prompt, ids, steps) {
  const cache = new PagedLatentCache(runner.pageCount, runner.pageSize);
  const sequence = cache.create();
  const slots = new Int32Array(runner.maxChunkTokens);
  const [logits, drawn] = [[], []];
  const adjust = (row) => logits.push(row.slice());
  const look = ids === null ? undefined : adjust;
  for (let position = 0; position < prompt.length; position += runner.maxChunkTokens) {
    const tokenIds = prompt.slice(position, position + runner.maxChunkTokens);
    cache.reserve(sequence, tokenIds.length);
    cache.append(sequence, tokenIds.length, slots);
    const isLast = position + tokenIds.length === prompt.length;
    const sampling = isLast ? greedy : null;
    const token = await runner.prefill({ tokenIds, position, slots, pages: sequence.pages, sampling }, look);
    if (isLast) drawn.push(token);
  }
  while (drawn.length < steps) {
    const tokenId = ids === null ? drawn.at(-1) : ids[drawn.length - 1];
    cache.reserve(sequence, 1);
    cache.append(sequence, 1, slots);
    const row = {
      tokenId,
      position: sequence.length - 1,
      slot: slots[0],
      pages: sequence.pages,
      sampling: greedy,
    };
    const [token] = await runner.decode([row], look && new Map([[0, look]]));
    drawn.push(token);
  }
  return { logits, drawn };
}
