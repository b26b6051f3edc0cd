import { decodeToF32 } from "../base/convert.ts";
import type { Device, DeviceBuffer } from "../device/device.ts";
import { mlaRowReference } from "../kernels/mla-decode/reference.ts";

/** A row, numbered through [batch, sQ, heads], and what it should be. */
export interface RowTruth {
  readonly row: number;
  readonly out: Float64Array;
  readonly lse: number;
}

/** One row of queries and the cached tokens it attends to. */
export interface TruthRow {
  readonly row: number;
  /** Byte offset of the row's query in `q`. */
  readonly queryOffset: number;
  /** How many of the tokens it sees. */
  readonly visible: number;
}

/** Where a sequence lies in a bf16 cache. */
export interface TruthSequence {
  readonly cache: DeviceBuffer;
  readonly pages: Int32Array;
  readonly pageSize: number;
  readonly latentWidth: number;
  readonly ropeWidth: number;
  readonly softmaxScale: number;
}

/** `count` bf16 values of a buffer from byte `offset` on. */
export async function readBf16(
  device: Device,
  buffer: DeviceBuffer,
  offset: number,
  count: number,
): Promise<Float32Array> {
  return decodeToF32(new Uint8Array(await device.read(buffer, offset, count * 2)), "bf16");
}

/** Attention in float64 of a few rows over one sequence, everything read back from the device. */
export async function readTruth(
  device: Device,
  q: DeviceBuffer,
  rows: readonly TruthRow[],
  sequence: TruthSequence,
): Promise<RowTruth[]> {
  const { cache, pages, pageSize, latentWidth, ropeWidth, softmaxScale } = sequence;
  const width = latentWidth + ropeWidth;
  const tokens: Float32Array[] = [];
  for (const page of pages) {
    const values = await readBf16(device, cache, page * pageSize * width * 2, pageSize * width);
    for (let t = 0; t < pageSize; t++) tokens.push(values.subarray(t * width, (t + 1) * width));
  }
  const truths: RowTruth[] = [];
  for (const { row, queryOffset, visible } of rows) {
    const query = await readBf16(device, q, queryOffset, width);
    const seen = { query, tokens: tokens.slice(0, visible), latentWidth, softmaxScale };
    truths.push({ row, ...mlaRowReference(seen) });
  }
  return truths;
}

/** |actual − expected| of the larger of |expected| and a twentieth: below it 16-bit probabilities leave nothing relative. */
const errorOf = (actual: number, expected: number) =>
  Math.abs(actual - expected) / Math.max(Math.abs(expected), 0.05);

/** The largest error of a row, that of its log-sum-exp included; NaN when a value is NaN. */
export function worstRowError(out: ArrayLike<number>, lse: number, expected: RowTruth): number {
  let worst = errorOf(lse, expected.lse);
  for (let i = 0; i < expected.out.length; i++) {
    const error = errorOf(out[i]!, expected.out[i]!);
    if (!(error <= worst)) worst = error;
  }
  return worst;
}
