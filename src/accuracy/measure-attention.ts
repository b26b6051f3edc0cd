import { encodeFromF32 } from "../base/convert.ts";
import { encodeFp8Entry } from "../base/fp8-entry.ts";
import type { Device, DeviceBuffer } from "../device/device.ts";
import { type LatentDtype, latentEntryBytes } from "../kernels/common/latent-cache.ts";
import { mlaDecodeWorkspaceBytes } from "../kernels/common/mla-partials.ts";
import { queryDtypeOn } from "../kernels/mla-decode/mla-decode.cuda.ts";
import { mlaDecode } from "../kernels/mla-decode/mla-decode.ts";
import type { AttentionTruth } from "./attention-truth.ts";
import type { Stream, StreamShape } from "./streams.ts";

const PAGE = 64;
/** Tokens that are encoded here before they are written to the device. */
const CHUNK = 4096;

/** How far a device with one cache format is from float64 over unrounded entries. */
export interface AttentionError {
  /** Root mean square over rows of |out − truth| / |truth|, lengths of whole rows. */
  readonly out: number;
  /** The largest of the rows. */
  readonly worstOut: number;
  /** Root mean square over rows of the absolute difference. */
  readonly lse: number;
}

/** Stored entries of `count` tokens, d_c + d_r values each. */
function encodeEntries(
  values: Float32Array,
  count: number,
  { latentWidth, ropeWidth }: StreamShape,
  dtype: LatentDtype,
): Uint8Array {
  const width = latentWidth + ropeWidth;
  if (dtype !== "fp8") return encodeFromF32(values.subarray(0, count * width), dtype);
  const bytes = latentEntryBytes(dtype, { latentWidth, ropeWidth });
  const entries = new Uint8Array(count * bytes);
  for (let token = 0; token < count; token++) {
    const entry = values.subarray(token * width, (token + 1) * width);
    const target = entries.subarray(token * bytes, (token + 1) * bytes);
    encodeFp8Entry(entry.subarray(0, latentWidth), entry.subarray(latentWidth), target);
  }
  return entries;
}

/** Writes the stream's entries to `cache` in their stored form, a chunk at a time. */
function fillCache(
  device: Device,
  cache: DeviceBuffer,
  stream: Stream,
  shape: StreamShape,
  dtype: LatentDtype,
) {
  const width = shape.latentWidth + shape.ropeWidth;
  const entryBytes = latentEntryBytes(dtype, shape);
  const chunk = new Float32Array(Math.min(CHUNK, shape.length) * width);
  let filled = 0;
  let start = 0;
  const flush = () => {
    device.write(cache, encodeEntries(chunk, filled, shape, dtype), start * entryBytes);
    start += filled;
    filled = 0;
  };
  stream.visit((entry) => {
    chunk.set(entry, filled * width);
    if (++filled * width === chunk.length) flush();
  });
  if (filled > 0) flush();
}

async function decode(device: Device, stream: Stream, shape: StreamShape, dtype: LatentDtype) {
  const buffers: DeviceBuffer[] = [];
  const reserve = (label: string, bytes: number) => {
    const buffer = device.allocate(bytes, label);
    buffers.push(buffer);
    return buffer;
  };
  const upload = (label: string, data: ArrayBufferView) => {
    const buffer = reserve(label, data.byteLength);
    device.write(buffer, data);
    return buffer;
  };
  const { length, heads, latentWidth } = shape;
  const qDtype = queryDtypeOn(device.kind, dtype);
  const pages = Math.ceil(length / PAGE);
  const sizes = { ...shape, batch: 1, sQ: 1, maxLen: length };
  try {
    const cache = reserve("cache", pages * PAGE * latentEntryBytes(dtype, shape));
    fillCache(device, cache, stream, shape, dtype);
    const args = {
      ...{ ...sizes, maxPages: pages, mask: "full" as const, softmaxScale: stream.softmaxScale },
      ...{ q: upload("q", encodeFromF32(stream.queries, qDtype)), qDtype },
      cache: { buffer: cache, dtype, pageSize: PAGE },
      blockTable: upload(
        "block table",
        Int32Array.from({ length: pages }, (_, i) => i),
      ),
      cacheSeqlens: upload("lengths", Int32Array.of(length)),
      workspace: reserve("workspace", mlaDecodeWorkspaceBytes(sizes)),
      out: reserve("out", heads * latentWidth * 4),
      lse: reserve("lse", heads * 4),
    };
    const program = device.record((launch) => mlaDecode(launch, args));
    program.run();
    await program.idle();
    program.free();
    const read = async (buffer: DeviceBuffer) => new Float32Array(await device.read(buffer, 0, buffer.bytes));
    return { out: await read(args.out), lse: await read(args.lse) };
  } finally {
    for (const buffer of buffers) buffer.free();
  }
}

/** Compares `out` [heads, d_c] and `lse` [heads] with the truth; NaN where any of them is. */
export function attentionError(
  actual: { readonly out: ArrayLike<number>; readonly lse: ArrayLike<number> },
  truth: AttentionTruth,
): AttentionError {
  const heads = truth.lse.length;
  const width = truth.out.length / heads;
  const rows = Array.from({ length: heads }, (_, row) => {
    let [difference, size] = [0, 0];
    for (let i = row * width; i < (row + 1) * width; i++) {
      difference += (actual.out[i]! - truth.out[i]!) ** 2;
      size += truth.out[i]! ** 2;
    }
    return { out: Math.sqrt(difference / size), lse: actual.lse[row]! - truth.lse[row]! };
  });
  const rootMeanSquare = (values: readonly number[]) =>
    Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
  return {
    out: rootMeanSquare(rows.map(({ out }) => out)),
    worstOut: Math.max(...rows.map(({ out }) => out)),
    lse: rootMeanSquare(rows.map(({ lse }) => lse)),
  };
}

/**
 * Stores `stream` in a cache of `dtype`, attends to it on `device` and compares with `truth`. Throws what the device throws: a
 * UserError when the cache does not fit, an error of its own for a format that it has no kernel for.
 */
export async function measureAttention(
  device: Device,
  stream: Stream,
  shape: StreamShape,
  dtype: LatentDtype,
  truth: AttentionTruth,
): Promise<AttentionError> {
  return attentionError(await decode(device, stream, shape, dtype), truth);
}
