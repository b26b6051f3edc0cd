import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testDevices } from "../../../tests/fixtures/devices.ts";
import { fromBf16, toBf16 } from "../../base/bf16.ts";
import { fromF16, toF16 } from "../../base/f16.ts";
import { decodeFp8Entry, encodeFp8Entry } from "../../base/fp8-entry.ts";
import { createRandom, type Random } from "../../base/random.ts";
import type { Device } from "../../device/device.ts";
import { type LatentDtype, latentEntryBytes } from "../common/latent-cache.ts";
import { mlaPrefill } from "./mla-prefill.ts";
import { mlaPrefillReference } from "./reference.ts";

interface Case {
  readonly rows: number;
  readonly length: number;
  readonly heads: number;
  readonly widths: readonly [latent: number, rope: number, nope: number, value: number];
  readonly weightDtype: "f32" | "f16" | "bf16";
  readonly cacheDtype: LatentDtype;
  readonly pageSize: number;
}

const narrow = {
  f32: (values: Float32Array) => ({ stored: values, values }),
  f16: (values: Float32Array) => ({ stored: toF16(values), values: fromF16(toF16(values)) }),
  bf16: (values: Float32Array) => ({ stored: toBf16(values), values: fromBf16(toBf16(values)) }),
};

/** A pool with the sequence's entries in shuffled pages, every other byte 0xff, and the entries as they read back. */
function createCache(shape: Case, random: Random) {
  const { length, pageSize, cacheDtype } = shape;
  const [latentWidth, ropeWidth] = shape.widths;
  const width = latentWidth + ropeWidth;
  const entryBytes = latentEntryBytes(cacheDtype, { latentWidth, ropeWidth });
  const pages = Math.ceil(length / pageSize);
  const pool = new Uint8Array((2 * pages + 1) * pageSize * entryBytes).fill(0xff);
  const blockTable = new Int32Array(pages + 2).fill(2147480000);
  const entries = new Float32Array(length * width);
  for (let t = 0; t < length; t++) {
    const page = Math.floor(t / pageSize);
    blockTable[page] = 2 * (pages - 1 - page) + 1;
    const entry = random.normals(width, 1);
    const at = (blockTable[page]! * pageSize + (t % pageSize)) * entryBytes;
    if (cacheDtype === "fp8") {
      const bytes = encodeFp8Entry(entry.subarray(0, latentWidth), entry.subarray(latentWidth));
      pool.set(bytes, at);
      entries.set(decodeFp8Entry(bytes), t * width);
    } else {
      const { stored, values } = narrow[cacheDtype](entry);
      pool.set(new Uint8Array(stored.buffer), at);
      entries.set(values, t * width);
    }
  }
  return { pool, blockTable, entries };
}

async function runPrefill(device: Device, shape: Case, maxRows = shape.rows + 3) {
  const { rows, heads, length } = shape;
  const [latentWidth, ropeWidth, nopeWidth, valueWidth] = shape.widths;
  const random = createRandom(rows * 100 + heads);
  const queryWidth = nopeWidth + ropeWidth;
  const kvB = narrow[shape.weightDtype](
    random.normals(heads * (nopeWidth + valueWidth) * latentWidth, latentWidth ** -0.5),
  );
  const q = random.normals(rows * heads * queryWidth);
  const { pool, blockTable, entries } = createCache(shape, random);
  const upload = (values: ArrayBufferView, bytes = values.byteLength) => {
    const buffer = device.allocate(bytes, "input");
    device.write(buffer, values);
    return buffer;
  };
  const out = device.allocate(maxRows * heads * valueWidth * 4, "out");
  const widths = { heads, latentWidth, ropeWidth, nopeWidth, valueWidth, softmaxScale: queryWidth ** -0.5 };
  const program = device.record((launch) =>
    mlaPrefill(launch, {
      ...widths,
      q: upload(q, maxRows * heads * queryWidth * 4),
      cache: { buffer: upload(pool), dtype: shape.cacheDtype, pageSize: shape.pageSize },
      blockTable: upload(blockTable),
      cacheSeqlens: upload(new Int32Array([length])),
      kvB: {
        buffer: upload(kvB.stored),
        dtype: shape.weightDtype,
        rows: heads * (nopeWidth + valueWidth),
        columns: latentWidth,
      },
      out,
      rowCount: upload(new Int32Array([rows])),
      maxRows,
      // Float32; `flashmla verify` holds the kernels on subgroup matrices to what f16 can do.
      webgpu: { variant: "portable" },
    }),
  );
  program.run();
  await program.idle();
  const actual = new Float32Array(await device.read(out, 0, out.bytes));
  program.free();
  const reference = () => mlaPrefillReference({ ...widths, q, entries, kvB: kvB.values, rows, length });
  return { actual, reference, live: rows * heads * valueWidth };
}

const cases: Case[] = [
  { rows: 1, length: 1, heads: 1, widths: [8, 8, 8, 8], weightDtype: "f32", cacheDtype: "f32", pageSize: 64 },
  {
    rows: 3,
    length: 67,
    heads: 2,
    widths: [16, 8, 24, 8],
    weightDtype: "f32",
    cacheDtype: "f32",
    pageSize: 5,
  },
  {
    rows: 70,
    length: 70,
    heads: 3,
    widths: [32, 16, 16, 40],
    weightDtype: "f16",
    cacheDtype: "f16",
    pageSize: 64,
  },
  {
    rows: 13,
    length: 200,
    heads: 2,
    widths: [256, 32, 64, 64],
    weightDtype: "bf16",
    cacheDtype: "bf16",
    pageSize: 64,
  },
  {
    rows: 64,
    length: 128,
    heads: 2,
    widths: [256, 64, 64, 128],
    weightDtype: "bf16",
    cacheDtype: "f32",
    pageSize: 16,
  },
  {
    rows: 9,
    length: 90,
    heads: 2,
    widths: [512, 64, 192, 256],
    weightDtype: "bf16",
    cacheDtype: "fp8",
    pageSize: 64,
  },
  // Heads this wide leave room for 8 queries: two passes.
  {
    rows: 13,
    length: 80,
    heads: 1,
    widths: [512, 64, 512, 1200],
    weightDtype: "bf16",
    cacheDtype: "bf16",
    pageSize: 64,
  },
];

describe.each(testDevices)("mla-prefill, $name", ({ kind, open }) => {
  let device: Device;
  beforeAll(async () => {
    device = await open();
  });
  afterAll(() => device.close());

  it.each(cases)(
    "n=$rows len=$length h=$heads $widths $weightDtype cache $cacheDtype page $pageSize: within 3e-6",
    async (shape) => {
      const { actual, reference, live } = await runPrefill(device, shape);
      const expected = reference();
      expect(expected.some((value) => Math.abs(value) > 0.1)).toBe(true);
      let worst = 0;
      for (let i = 0; i < live; i++) {
        const difference = Math.abs(actual[i]! - expected[i]!);
        worst = difference <= worst ? worst : difference;
      }
      expect(worst).toBeLessThan(3e-6);
      expect(actual.subarray(live).every(Number.isNaN)).toBe(true);
    },
  );

  it("n=13 in buckets of 13 and 64: the same bits", async () => {
    const exact = await runPrefill(device, cases[3]!, 13);
    const wide = await runPrefill(device, cases[3]!, 64);
    expect(exact.actual.subarray(0, exact.live)).toEqual(wide.actual.subarray(0, wide.live));
  });

  it("n=0 and len=0: nothing is written", async () => {
    const { actual } = await runPrefill(device, { ...cases[1]!, rows: 0, length: 0 });
    expect(actual.every(Number.isNaN)).toBe(true);
  });

  it("n=3 len=2: the query before the cache gives 0, the others as ever", async () => {
    const { actual } = await runPrefill(device, { ...cases[1]!, rows: 3, length: 2 });
    expect(actual.subarray(0, 16).every((value) => value === 0)).toBe(true);
    expect(actual.subarray(16, 48).every((value) => Number.isFinite(value) && value !== 0)).toBe(true);
  });

  it.runIf(kind === "cpu")(
    "d_c=512, d_n=d_v=1024: a RangeError, since no pass fits the scratch memory",
    async () => {
      const shape = { ...cases[0]!, widths: [512, 64, 1024, 1024] as const };
      await expect(runPrefill(device, shape)).rejects.toThrow(/latentWidth: 512 .* do not fit/);
    },
  );

  it("nopeWidth=12: a RangeError that names it", async () => {
    const shape = { ...cases[0]!, widths: [8, 8, 12, 8] as const };
    await expect(runPrefill(device, shape)).rejects.toThrow(/nopeWidth must be a multiple of 8/);
  });
});
