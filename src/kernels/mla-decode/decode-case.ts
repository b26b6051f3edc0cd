import { decodeToF32 } from "../../base/convert.ts";
import { bytesPerElement, type WeightDType } from "../../base/dtypes.ts";
import { createRandom } from "../../base/random.ts";
import type { Device } from "../../device/device.ts";
import type { CaseMemory } from "../common/cases/case-memory.ts";
import { compareRows, sampleRows } from "../common/cases/compare.ts";
import type { Finding, KernelCase, PreparedCase, Tolerance } from "../common/cases/kernel-case.ts";
import type { LatentDtype } from "../common/latent-cache.ts";
import {
  type DecodeInputs,
  type DecodeShape,
  decodeTruth,
  makeDecodeInputs,
  uploadDecodeInputs,
} from "./decode-inputs.ts";
import { type MlaDecodeCudaOptions, queryDtypeOn } from "./mla-decode.cuda.ts";
import { mlaDecode } from "./mla-decode.ts";

/** A decode, what it is about, and how near it must come. */
export interface DecodeCase extends DecodeShape, Pick<KernelCase, "group" | "isQuick"> {
  /** For people, without s_q, heads and mask. */
  readonly name: string;
  /** Multiply-adds that its truth may take: how many rows are compared follows from it. */
  readonly truthBudget: number;
  readonly tolerances: DecodeTolerances;
  /** The same for kernels that take q, multiply probabilities and give out in 16 bits. */
  readonly tolerances16: DecodeTolerances;
}

/** How near each output must come. */
export interface DecodeTolerances {
  readonly out: Tolerance;
  readonly lse: Tolerance;
}

/**
 * The tolerances of the public test suite of this operation (16-bit in and out, inputs clamped normal/10): a value passes
 * within the absolute or the relative one, and the cosine is judged over all values of out.
 */
export const publicTolerances: DecodeTolerances = {
  out: { absolute: 8e-4, relative: 2.01 / 128, cosine: 5e-6 },
  lse: { absolute: 1e-6, relative: 8.01 / 65536 },
};

const LEAST_ROWS = 6;
const MOST_ROWS = 512;

interface Way {
  readonly name: string;
  readonly dtype: WeightDType;
  readonly cuda?: MlaDecodeCudaOptions;
}

/** The ways to run it on a device: GPUs have several kernels, and all must be right. */
function waysOn(device: Device, { isQuick }: DecodeCase, cache: LatentDtype): Way[] {
  const dtype = queryDtypeOn(device.kind, cache);
  if (dtype === "f32") return [{ name: "", dtype }];
  return [
    { name: "", dtype },
    { name: " (portable)", dtype, cuda: { variant: "portable" } },
    { name: " (split at 128)", dtype, cuda: { splitTokens: 128 } },
    ...(isQuick ? [{ name: " (f32)", dtype: "f32" } as const] : []),
  ];
}

async function runDecode(memory: CaseMemory, shape: DecodeCase, inputs: DecodeInputs) {
  const results: (Way & { out: Float32Array; lse: Float32Array })[] = [];
  for (const way of waysOn(memory.device, shape, inputs.cache.dtype)) {
    const { dtype, cuda } = way;
    const partial = uploadDecodeInputs(memory, shape, inputs, dtype);
    const rows = partial.batch * partial.sQ * partial.heads;
    const out = memory.reserve("out", rows * partial.latentWidth * bytesPerElement(dtype));
    const lse = memory.reserve("lse", rows * 4);
    const types = { qDtype: dtype, outDtype: dtype, ...(cuda === undefined ? {} : { cuda }) };
    await memory.run((launch) => mlaDecode(launch, { ...partial, ...types, out, lse }));
    const values = decodeToF32(new Uint8Array(await memory.device.read(out, 0, out.bytes)), dtype);
    results.push({ ...way, out: values, lse: await memory.readFloats(lse) });
  }
  return results;
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
      const results = await runDecode(memory, shape, inputs);
      return results.flatMap((actual) => {
        const { out, lse } = actual.dtype === "f32" ? tolerances : shape.tolerances16;
        return [
          compareRows({
            ...{ ...common, output: `out${actual.name}`, actual: actual.out, expected: truth.out },
            ...{ tolerance: out, constantOf: whereEmpty(0), width: latentWidth, storedAs: actual.dtype },
          }),
          compareRows({
            ...{ ...common, output: `lse${actual.name}`, actual: actual.lse, expected: truth.lse },
            ...{ tolerance: lse, constantOf: whereEmpty(Number.POSITIVE_INFINITY), width: 1 },
          }),
        ];
      });
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
