import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { decodeToF32 } from "../../src/base/convert.ts";
import type { ModelConfig } from "../../src/formats/config.ts";
import { parseModelConfig } from "../../src/formats/config.ts";

/** Two of the tiny models are in the repository; models/ in the folder FLASHMLA_GOLDEN has all six, unpacked. */
const packed = join(dirname(fileURLToPath(import.meta.url)), "models");
const folder = process.env.FLASHMLA_GOLDEN ? join(process.env.FLASHMLA_GOLDEN, "models") : "";
const names = [
  "deepseek-v2-tiny",
  "deepseek-v3-tiny",
  "glm4-moe-lite-tiny",
  "minicpm3-tiny",
  "mistral4-tiny",
  "youtu-tiny",
];

const isPacked = (name: string) => existsSync(join(packed, name));
const isUnpacked = (name: string) => folder !== "" && existsSync(join(folder, name));

/** The tiny models at hand, and those only FLASHMLA_GOLDEN would bring. */
export const goldenNames = names.filter((name) => isPacked(name) || isUnpacked(name));
export const missingNames = names.filter((name) => !goldenNames.includes(name));
if (missingNames.length > 0) {
  console.info(`skipped, as FLASHMLA_GOLDEN names no folder that holds them: ${missingNames.join(", ")}`);
}

/** A prompt, what greedy decoding made of it, and the logits on the way, computed by transformers in float32. */
export interface GoldenCase {
  readonly prompt: readonly number[];
  /** [24] */
  readonly greedyIds: readonly number[];
  /** The last min(prompt, 8) positions of the prompt. */
  readonly promptLogits: readonly Float32Array[];
  /** [24, vocab]: the logits each greedy id is the largest of. */
  readonly greedyLogits: readonly Float32Array[];
}

/** A tiny model as a checkpoint folder, with its cases: prompts of 1, 7, 64 and 201 ids. */
export interface GoldenModel {
  readonly folder: string;
  readonly config: ModelConfig;
  readonly cases: readonly GoldenCase[];
  /** Removes what was unpacked. */
  close(): void;
}

interface Entry {
  readonly dtype: string;
  readonly data_offsets: [number, number];
}

/** Every tensor of a safetensors file of BF16, F32 and I32 as numbers, by a reader apart from the one under test. */
export function readTensors(path: string): Map<string, Float32Array | Int32Array> {
  const file = readFileSync(path);
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, start)) as Record<string, Entry>;
  const tensors = new Map<string, Float32Array | Int32Array>();
  for (const [name, { dtype, data_offsets }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const bytes = Uint8Array.from(file.subarray(start + data_offsets[0], start + data_offsets[1]));
    const values =
      dtype === "I32" ? new Int32Array(bytes.buffer) : decodeToF32(bytes, dtype === "F32" ? "f32" : "bf16");
    tensors.set(name, values);
  }
  return tensors;
}

function readCases(path: string, vocabSize: number): GoldenCase[] {
  const tensors = readTensors(path);
  const rows = (name: string) => {
    const values = tensors.get(name) as Float32Array;
    const count = values.length / vocabSize;
    return Array.from({ length: count }, (_, row) => values.subarray(row * vocabSize, (row + 1) * vocabSize));
  };
  return [0, 1, 2, 3].map((index) => ({
    prompt: Array.from(tensors.get(`case${index}.input_ids`)!),
    greedyIds: Array.from(tensors.get(`case${index}.greedy_ids`)!),
    promptLogits: rows(`case${index}.prompt_logits`),
    greedyLogits: rows(`case${index}.greedy_logits`),
  }));
}

function unpack(name: string): string {
  const target = mkdtempSync(join(tmpdir(), `flashmla-${name}-`));
  for (const file of readdirSync(join(packed, name))) {
    const content = readFileSync(join(packed, name, file));
    const zipped = file.endsWith(".gz");
    writeFileSync(join(target, zipped ? file.slice(0, -3) : file), zipped ? gunzipSync(content) : content);
  }
  return target;
}

/** Opens one of {@link goldenNames}. */
export function openGolden(name: string): GoldenModel {
  const unpacked = isUnpacked(name);
  const path = unpacked ? join(folder, name) : unpack(name);
  const config = parseModelConfig(JSON.parse(readFileSync(join(path, "config.json"), "utf8")));
  return {
    folder: path,
    config,
    cases: readCases(join(path, "golden.safetensors"), config.vocabSize),
    close: () => {
      if (!unpacked) rmSync(path, { recursive: true });
    },
  };
}

/** Position of the largest value; the lowest of equals. */
export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

/** The largest absolute difference; NaN where one has a NaN. */
export function worstDifference(got: ArrayLike<number>, expected: ArrayLike<number>): number {
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(got[i]! - expected[i]!);
    if (!(difference <= worst)) worst = difference;
  }
  return worst;
}

/** Cosine of the angle between two vectors; NaN where one has a NaN. */
export function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let dot = 0;
  let squaresA = 0;
  let squaresB = 0;
  for (let i = 0; i < a.length; i++) {
    dot += a[i]! * b[i]!;
    squaresA += a[i]! ** 2;
    squaresB += b[i]! ** 2;
  }
  return dot / Math.sqrt(squaresA * squaresB);
}
