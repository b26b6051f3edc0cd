import { createRandom } from "../../base/random.ts";
import type { CaseMemory } from "../common/cases/case-memory.ts";
import { compareRows, sampleRows } from "../common/cases/compare.ts";
import type { Finding, KernelCase, PreparedCase, Tolerance } from "../common/cases/kernel-case.ts";
import {
  type DecodeInputs,
  type DecodeShape,
  decodeTruth,
  makeDecodeInputs,
  uploadDecodeInputs,
} from "./decode-inputs.ts";
import { mlaDecode } from "./mla-decode.ts";

/** A decode, what it is about, and how near it must come. */
export interface DecodeCase extends DecodeShape, Pick<KernelCase, "group" | "isQuick"> {
  /** For people, without s_q, heads and mask. */
  readonly name: string;
  /** Multiply-adds that its truth may take: how many rows are compared follows from it. */
  readonly truthBudget: number;
  readonly tolerances: { readonly out: Tolerance; readonly lse: Tolerance };
}

const LEAST_ROWS = 6;
const MOST_ROWS = 512;

async function runDecode(memory: CaseMemory, shape: DecodeCase, inputs: DecodeInputs) {
  const partial = uploadDecodeInputs(memory, shape, inputs);
  const rows = partial.batch * partial.sQ * partial.heads;
  const out = memory.reserve("out", rows * partial.latentWidth * 4);
  const lse = memory.reserve("lse", rows * 4);
  await memory.run((launch) => mlaDecode(launch, { ...partial, out, lse }));
  return { out: await memory.readFloats(out), lse: await memory.readFloats(lse) };
}

function chooseRows({ seed, sQ, heads, truthBudget }: DecodeCase, { cache }: DecodeInputs): number[] {
  const perRow = cache.maxLen * (2 * cache.latentWidth + cache.ropeWidth);
  const count = Math.max(LEAST_ROWS, Math.min(MOST_ROWS, Math.floor(truthBudget / perRow)));
  return sampleRows(cache.lengths.length * sQ * heads, count, createRandom(seed).uniform);
}

function prepare(shape: DecodeCase): PreparedCase {
  const { sQ, heads, tolerances } = shape;
  const inputs = makeDecodeInputs(shape);
  const { lengths, latentWidth } = inputs.cache;
  const rows = chooseRows(shape, inputs);
  const truth = decodeTruth(shape, inputs, rows);
  const empty = Array.from({ length: lengths.length * sQ }, (_, token) =>
    inputs.seesNothing(Math.floor(token / sQ), token % sQ),
  );
  const whereEmpty = (value: number) => (row: number) => (empty[Math.floor(row / heads)] ? value : null);
  const common = { liveRows: lengths.length * sQ * heads, rows };
  return {
    async check(memory): Promise<Finding[]> {
      const actual = await runDecode(memory, shape, inputs);
      return [
        compareRows({
          ...{ ...common, output: "out", actual: actual.out, expected: truth.out, width: latentWidth },
          ...{ tolerance: tolerances.out, constantOf: whereEmpty(0) },
        }),
        compareRows({
          ...{ ...common, output: "lse", actual: actual.lse, expected: truth.lse, width: 1 },
          ...{ tolerance: tolerances.lse, constantOf: whereEmpty(Number.POSITIVE_INFINITY) },
        }),
      ];
    },
  };
}

/** `shape` as a case that any device can run. */
export function decodeCase(shape: DecodeCase): KernelCase {
  const { group, isQuick, name, sQ, heads, mask } = shape;
  return {
    ...{ kernel: "mla-decode", group, isQuick },
    shape: `${name} s_q=${sQ} h=${heads} ${mask}`,
    prepare: () => prepare(shape),
  };
}
