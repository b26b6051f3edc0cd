import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testDevices } from "../../../tests/fixtures/devices.ts";
import { toBf16 } from "../../base/bf16.ts";
import { decodeToF32 } from "../../base/convert.ts";
import { toF16 } from "../../base/f16.ts";
import { decodeFp8Entry, encodeFp8Entry } from "../../base/fp8-entry.ts";
import { createRandom } from "../../base/random.ts";
import type { Device } from "../../device/device.ts";
import type { LatentDtype } from "../common/latent-cache.ts";
import { mlaDecodeWorkspaceBytes } from "../common/mla-partials.ts";
import { type MlaDecodeTokens, mlaDecode } from "./mla-decode.ts";
import { mlaDecodeReference, visibleSlots } from "./reference.ts";

interface Case {
  readonly lengths: readonly number[];
  readonly sQ: number;
  readonly heads: number;
  readonly latentWidth: number;
  readonly ropeWidth: number;
  readonly dtype: LatentDtype;
  readonly mask: "causal" | "full" | "indices";
  readonly pageSize: number;
}

function shape(text: string): Case {
  const [lengths, sQ, heads, latentWidth, ropeWidth, dtype, mask, pageSize] = text.split(" ");
  return {
    lengths: lengths!.split(",").map(Number),
    sQ: Number(sQ),
    heads: Number(heads),
    latentWidth: Number(latentWidth),
    ropeWidth: Number(ropeWidth),
    dtype: dtype as LatentDtype,
    mask: mask as Case["mask"],
    pageSize: Number(pageSize),
  };
}

function encodeEntry(values: Float32Array, { dtype, latentWidth }: Case): Uint8Array {
  if (dtype === "fp8") return encodeFp8Entry(values.subarray(0, latentWidth), values.subarray(latentWidth));
  const stored = dtype === "f32" ? values : dtype === "f16" ? toF16(values) : toBf16(values);
  return new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
}

function decodeEntry(bytes: Uint8Array, dtype: LatentDtype): Float32Array {
  return dtype === "fp8" ? decodeFp8Entry(bytes) : decodeToF32(bytes, dtype);
}

/** A cache of shuffled pages whose unused rows are NaN bytes, and tables whose unused entries are absurd. */
function makeInputs(shape: Case, seed: number) {
  const random = createRandom(seed);
  const { lengths, sQ, heads, pageSize, latentWidth, ropeWidth } = shape;
  const width = latentWidth + ropeWidth;
  const maxLen = Math.max(1, ...lengths);
  const maxPages = Math.ceil(maxLen / pageSize) + 2;
  const order = lengths.flatMap((length) => Array(Math.ceil(length / pageSize)).fill(0)).map((_, i) => i + 1);
  for (let i = order.length - 1; i > 0; i--) {
    const j = random.integer(i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  const blockTable = new Int32Array(lengths.length * maxPages).fill(2147480000);
  const entryBytes = encodeEntry(new Float32Array(width), shape).length;
  const cache = new Uint8Array((order.length + 2) * pageSize * entryBytes).fill(0xff);
  const live: number[][] = lengths.map((length, b) => {
    const pages = order.splice(0, Math.ceil(length / pageSize));
    blockTable.set(pages, b * maxPages);
    return Array.from({ length }, (_, t) => pages[Math.floor(t / pageSize)]! * pageSize + (t % pageSize));
  });
  for (const slot of live.flat()) cache.set(encodeEntry(random.normals(width), shape), slot * entryBytes);
  const indices = new Int32Array(lengths.length * sQ * maxLen).map((_, i) => {
    const own = live[Math.floor(i / (sQ * maxLen))]!;
    return own.length === 0 || random.uniform() < 0.2 ? -1 : own[random.integer(own.length)]!;
  });
  const q = random.normals(lengths.length * sQ * heads * width, 0.7);
  return { q, cache, blockTable, indices, maxLen, maxPages, entryBytes };
}

function expectedOf(shape: Case, inputs: ReturnType<typeof makeInputs>, softmaxScale: number) {
  const { lengths, sQ, mask, pageSize } = shape;
  const { maxPages, maxLen, entryBytes } = inputs;
  return mlaDecodeReference({
    ...shape,
    q: inputs.q,
    batch: lengths.length,
    softmaxScale,
    entry: (slot) => decodeEntry(inputs.cache.slice(slot * entryBytes, (slot + 1) * entryBytes), shape.dtype),
    slots: (b, j) => {
      if (mask === "indices") {
        const start = (b * sQ + j) * maxLen;
        return [...inputs.indices.subarray(start, start + maxLen)].filter((slot) => slot >= 0);
      }
      const blockTable = inputs.blockTable.subarray(b * maxPages, (b + 1) * maxPages);
      const hidden = mask === "causal" ? sQ - 1 - j : 0;
      return visibleSlots({ blockTable, length: lengths[b]!, pageSize, hidden });
    },
  });
}

async function runOn(
  device: Device,
  shape: Case,
  inputs: ReturnType<typeof makeInputs>,
  softmaxScale: number,
) {
  const upload = (label: string, data: ArrayBufferView) => {
    const buffer = device.allocate(data.byteLength, label);
    device.write(buffer, data);
    return buffer;
  };
  const batch = shape.lengths.length + 1; // one sequence recorded, not in use
  const sizes = { ...shape, batch, maxLen: inputs.maxLen };
  const rows = shape.lengths.length * shape.sQ * shape.heads;
  const more = rows + shape.sQ * shape.heads;
  const padded = <T extends Float32Array | Int32Array>(data: T, length: number) => {
    const buffer = device.allocate(length * 4, "padded");
    device.write(buffer, data);
    return buffer;
  };
  const tokens: MlaDecodeTokens =
    shape.mask === "indices"
      ? { mask: "indices", indices: padded(inputs.indices, batch * shape.sQ * inputs.maxLen) }
      : {
          mask: shape.mask,
          blockTable: padded(inputs.blockTable, batch * inputs.maxPages),
          maxPages: inputs.maxPages,
          cacheSeqlens: padded(Int32Array.from(shape.lengths), batch),
        };
  const out = device.allocate(more * shape.latentWidth * 4, "out");
  const lse = device.allocate(more * 4, "lse");
  const program = device.record((launch) =>
    mlaDecode(launch, {
      ...sizes,
      ...tokens,
      q: padded(inputs.q, more * (shape.latentWidth + shape.ropeWidth)),
      cache: { buffer: upload("cache", inputs.cache), dtype: shape.dtype, pageSize: shape.pageSize },
      softmaxScale,
      workspace: device.allocate(mlaDecodeWorkspaceBytes(sizes), "workspace"),
      batchCount: upload("batchCount", new Int32Array([shape.lengths.length])),
      out,
      lse,
    }),
  );
  program.run();
  await program.idle();
  const all = {
    out: new Float32Array(await device.read(out, 0, out.bytes)),
    lse: new Float32Array(await device.read(lse, 0, lse.bytes)),
  };
  expect(all.out.subarray(rows * shape.latentWidth).every(Number.isNaN)).toBe(true);
  expect(all.lse.subarray(rows).every(Number.isNaN)).toBe(true);
  return { out: all.out.subarray(0, rows * shape.latentWidth), lse: all.lse.subarray(0, rows) };
}

function expectClose(actual: Float32Array, expected: Float64Array, tolerance: number) {
  expect(actual.length).toBe(expected.length);
  let worst = 0;
  for (let i = 0; i < actual.length; i++) {
    if (Number.isFinite(expected[i]!)) {
      const error = Math.abs(actual[i]! - expected[i]!) / Math.max(1, Math.abs(expected[i]!));
      worst = Number.isNaN(error) ? Number.NaN : Math.max(worst, error);
    } else expect(actual[i]).toBe(expected[i]);
  }
  expect(worst).toBeLessThan(tolerance);
}

// lengths, s_q, heads, d_c, d_r, stored form, mask, page size
const cases = [
  "1 1 1 128 32 f32 full 64",
  "20,0,33 1 3 256 32 f16 full 64",
  "140,65 2 9 256 64 bf16 causal 64",
  "600,1,0,3 4 20 512 64 bf16 causal 64",
  "300 1 16 512 64 fp8 full 64",
  "70,257 2 40 512 64 fp8 indices 64",
  "31,0 1 63 128 64 f16 indices 16",
  "513 1 126 256 64 f32 causal 16",
  "4300 1 5 128 32 bf16 full 64",
  "97,96 3 7 512 32 f16 causal 1",
];

describe.each(testDevices)("mla-decode, $name", ({ open }) => {
  let device: Device;
  beforeAll(async () => {
    device = await open();
  });
  afterAll(() => device.close());

  it.each(cases)("%s: out and lse within 4e-6 of float64", async (text) => {
    const parsed = shape(text);
    const inputs = makeInputs(parsed, text.length * 31 + parsed.heads);
    const scale = 1 / Math.sqrt(parsed.latentWidth / 4);
    const actual = await runOn(device, parsed, inputs, scale);
    const expected = expectedOf(parsed, inputs, scale);
    expectClose(actual.lse, expected.lse, 4e-6);
    expectClose(actual.out, expected.out, 4e-6);
  });
});
