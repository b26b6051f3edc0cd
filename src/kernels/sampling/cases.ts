import { createRandom } from "../../base/random.ts";
import type { CaseMemory } from "../common/cases/case-memory.ts";
import type { Finding, KernelCase, PreparedCase } from "../common/cases/kernel-case.ts";
import { packSamplingParams, type SamplingParams } from "./params.ts";
import { philoxReference, samplingReference } from "./reference.ts";
import { sampling } from "./sampling.ts";

const ROWS = 24;
const plain: SamplingParams = { temperature: 1, topK: 0, topP: 1, minP: 0, seed: 7, step: 0 };

const shapes: readonly (readonly [vocab: number, change: Partial<SamplingParams>])[] = [
  [1, {}],
  [5, {}],
  [1000, {}],
  [4099, { temperature: 0.7 }],
  [1000, { topK: 1 }],
  [1000, { topK: 40, temperature: 1.5 }],
  [1000, { topP: 0.9 }],
  [1000, { topP: 0 }],
  [1000, { minP: 0.1 }],
  [4099, { topK: 50, topP: 0.8, minP: 0.05, temperature: 0.9 }],
  [1000, { topK: 5000, seed: 2 ** 40 + 3 }],
  [129_280, { topP: 0.95, temperature: 0.6 }],
  [1000, { temperature: 0 }],
];

/** The share of the distribution, [from, to), whose random numbers draw `id`. */
type Interval = (id: number) => readonly [from: number, to: number];

/** Greedy draws its id with every number; the others by the cumulative probabilities, in the order of ids. */
function intervalsOf(logits: Float32Array, params: SamplingParams): Interval {
  if (params.temperature === 0) {
    const best = logits.indexOf(logits.reduce((most, logit) => Math.max(most, logit)));
    return (id) => (id === best ? [0, 1] : [0, 0]);
  }
  const probabilities = samplingReference(logits, params);
  const ends = new Float64Array(probabilities.length);
  let sum = 0;
  probabilities.forEach((p, id) => {
    sum += p;
    ends[id] = sum;
  });
  return (id) => [(ends[id] ?? 0) - (probabilities[id] ?? 0), ends[id] ?? 0];
}

async function draw(memory: CaseMemory, logits: readonly Float32Array[], params: readonly SamplingParams[]) {
  const vocab = logits[0]!.length;
  const maxRows = logits.length + 1;
  const flat = new Float32Array(logits.length * vocab);
  for (const [row, values] of logits.entries()) flat.set(values, row * vocab);
  const args = {
    ...{ maxRows, vocab, validVocab: vocab },
    logits: memory.upload("logits", flat, maxRows * vocab * 4),
    params: memory.upload("params", packSamplingParams(params), maxRows * 32),
    out: memory.reserve("out", maxRows * 4),
    workspace: memory.reserve("workspace", maxRows * vocab * 4),
    rowCount: memory.uploadCount("rowCount", logits.length),
  };
  await memory.run((launch) => sampling(launch, args));
  return new Int32Array(await memory.device.read(args.out, 0, maxRows * 4));
}

/** How far each row's random number lies outside the share of the id that was drawn. */
function judge(ids: Int32Array, intervals: readonly Interval[], params: readonly SamplingParams[]): Finding {
  const tolerance = { absolute: 1e-5, relative: 0 };
  const finding = { output: "ids", rows: ROWS, checkedRows: ROWS, relative: 0, cosine: 0, tolerance };
  let absolute = 0;
  let problem = ids[ROWS] === -1 ? null : `writes row ${ROWS}, past the ${ROWS} rows in use`;
  intervals.forEach((intervalOf, row) => {
    const [from, to] = intervalOf(ids[row]!);
    const u = philoxReference(params[row]!.seed, params[row]!.step) / 2 ** 32;
    const outside = to > from ? Math.max(0, from - u, u - to) : 1;
    absolute = Math.max(absolute, outside);
    if (outside > tolerance.absolute) {
      problem ??= `row ${row} draws ${ids[row]}, whose share is ${from} to ${to}, with the number ${u}`;
    }
  });
  return { ...finding, absolute, problem };
}

function prepare(vocab: number, change: Partial<SamplingParams>): PreparedCase {
  const random = createRandom(vocab);
  const logits = Array.from({ length: ROWS }, () => random.normals(vocab, 2));
  const params = logits.map((_, step) => ({ ...plain, ...change, step }));
  const intervals = logits.map((row, index) => intervalsOf(row, params[index]!));
  return { check: async (memory) => [judge(await draw(memory, logits, params), intervals, params)] };
}

/** Cases of sampling: every filter, greedy, one token to 129,280. */
export function samplingCases(): KernelCase[] {
  return shapes.map(([vocab, change]) => ({
    ...{ kernel: "sampling", group: "all filters", isQuick: vocab < 10_000 },
    shape: `n=${ROWS} vocab=${vocab} ${JSON.stringify(change)}`,
    prepare: () => prepare(vocab, change),
  }));
}
