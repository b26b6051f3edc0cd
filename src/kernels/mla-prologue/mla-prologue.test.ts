import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testDevices } from "../../../tests/fixtures/devices.ts";
import { fromBf16, toBf16 } from "../../base/bf16.ts";
import { fromF16, toF16 } from "../../base/f16.ts";
import { encodeFp8Entry } from "../../base/fp8-entry.ts";
import { createRandom } from "../../base/random.ts";
import type { Device } from "../../device/device.ts";
import { type LatentDtype, latentEntryBytes } from "../common/latent-cache.ts";
import { mlaPrologue } from "./mla-prologue.ts";
import { mlaPrologueReference } from "./reference.ts";

interface Case {
  readonly phase: "decode" | "prefill";
  readonly rows: number;
  readonly heads: number;
  readonly widths: readonly [latent: number, rope: number, nope: number, value: number];
  readonly rotary: "interleaved" | "halves";
  readonly weightDtype: "f32" | "f16" | "bf16";
  readonly cacheDtype: LatentDtype;
  readonly isScaled?: boolean;
}

const narrow = {
  f32: (values: Float32Array) => ({ stored: values, values }),
  f16: (values: Float32Array) => ({ stored: toF16(values), values: fromF16(toF16(values)) }),
  bf16: (values: Float32Array) => ({ stored: toBf16(values), values: fromBf16(toBf16(values)) }),
};

const PAGE = 16;
const PAGES = 3;
const POSITIONS = 40;

async function runPrologue(device: Device, shape: Case, maxRows = shape.rows + 2) {
  const { rows, heads } = shape;
  const [latentWidth, ropeWidth, nopeWidth, valueWidth] = shape.widths;
  const random = createRandom(rows * 100 + heads);
  const width = latentWidth + ropeWidth;
  const queryWidth = nopeWidth + ropeWidth;
  const weights = narrow[shape.weightDtype](
    random.normals(heads * (nopeWidth + valueWidth) * latentWidth, 0.1),
  );
  const data = {
    q: random.normals(rows * heads * queryWidth),
    latent: random.normals(rows * width),
    normWeight: random.normals(latentWidth, 1),
    positions: Int32Array.from({ length: rows }, () => random.integer(POSITIONS)),
    rotaryTable: random.normals(POSITIONS * ropeWidth),
    slots: Int32Array.from({ length: rows }, (_, row) =>
      row % 4 === 3 ? -1 : (row * 7 + 5) % (PAGE * PAGES),
    ),
    rowCount: new Int32Array([rows]),
  };
  const scaleTable = shape.isScaled ? random.normals(POSITIONS) : null;
  const upload = (values: ArrayBufferView, bytes = values.byteLength) => {
    const buffer = device.allocate(bytes, "input");
    device.write(buffer, values);
    return buffer;
  };
  const entryBytes = latentEntryBytes(shape.cacheDtype, { latentWidth, ropeWidth });
  const outWidth = shape.phase === "decode" ? width : queryWidth;
  const q = upload(data.q, maxRows * heads * queryWidth * 4);
  const qOut = shape.phase === "decode" ? device.allocate(maxRows * heads * width * 4, "qOut") : q;
  const cache = device.allocate(PAGE * PAGES * entryBytes, "cache");
  const program = device.record((launch) =>
    mlaPrologue(launch, {
      ...{ phase: shape.phase, rotary: shape.rotary, q, qOut, maxRows, heads, epsilon: 1e-6 },
      ...{ latentWidth, ropeWidth, nopeWidth, valueWidth },
      latent: upload(data.latent, maxRows * width * 4),
      normWeight: upload(data.normWeight),
      kvB: {
        buffer: upload(weights.stored),
        dtype: shape.weightDtype,
        rows: heads * (nopeWidth + valueWidth),
        columns: latentWidth,
      },
      positions: upload(data.positions, maxRows * 4),
      rotaryTable: upload(data.rotaryTable),
      queryScale: scaleTable ? upload(scaleTable) : null,
      slots: upload(data.slots, maxRows * 4),
      cache: { buffer: cache, dtype: shape.cacheDtype, pageSize: PAGE },
      rowCount: upload(data.rowCount),
    }),
  );
  program.run();
  await program.idle();
  const expected = mlaPrologueReference({
    ...data,
    ...shape,
    ...{ latentWidth, ropeWidth, nopeWidth, valueWidth, epsilon: 1e-6 },
    kvB: weights.values,
    queryScale: scaleTable,
  });
  const queries = new Float32Array(await device.read(qOut, 0, maxRows * heads * outWidth * 4));
  const pool = await device.read(cache, 0, PAGE * PAGES * entryBytes);
  program.free();
  return { expected, queries, pool, slots: data.slots, entryBytes, outWidth };
}

function expectClose(actual: ArrayLike<number>, expected: readonly number[], tolerance: number): void {
  expect(actual.length).toBe(expected.length);
  const largest = Math.max(1, ...expected.map(Math.abs));
  for (let i = 0; i < expected.length; i++) {
    expect(Math.abs(actual[i]! - expected[i]!), `value ${i}`).toBeLessThan(tolerance * largest);
  }
}

const deepseek = [512, 64, 128, 128] as const;
const minicpm = [256, 32, 64, 64] as const;
const cases: Case[] = [
  {
    phase: "decode",
    rows: 1,
    heads: 3,
    widths: deepseek,
    rotary: "interleaved",
    weightDtype: "bf16",
    cacheDtype: "f32",
  },
  {
    phase: "decode",
    rows: 5,
    heads: 2,
    widths: minicpm,
    rotary: "halves",
    weightDtype: "f16",
    cacheDtype: "f32",
  },
  {
    phase: "decode",
    rows: 19,
    heads: 2,
    widths: [8, 4, 4, 12],
    rotary: "halves",
    weightDtype: "f32",
    cacheDtype: "f32",
    isScaled: true,
  },
  {
    phase: "prefill",
    rows: 9,
    heads: 3,
    widths: [256, 64, 64, 128],
    rotary: "interleaved",
    weightDtype: "bf16",
    cacheDtype: "f32",
    isScaled: true,
  },
  {
    phase: "prefill",
    rows: 33,
    heads: 2,
    widths: minicpm,
    rotary: "halves",
    weightDtype: "bf16",
    cacheDtype: "f32",
  },
];

describe.each(testDevices)("mla-prologue, $name", ({ open }) => {
  let device: Device;
  beforeAll(async () => {
    device = await open();
  });
  afterAll(() => device.close());

  it.each(cases)("$phase n=$rows h=$heads $widths $rotary $weightDtype: within 2e-6", async (shape) => {
    const { expected, queries, pool, slots, outWidth } = await runPrologue(device, shape);
    const live = shape.rows * shape.heads * outWidth;
    expectClose(queries.subarray(0, live), expected.queries.flat(2), 2e-6);
    expect(queries.subarray(live).every(Number.isNaN)).toBe(true);
    const width = shape.widths[0] + shape.widths[1];
    const entries = new Float32Array(pool);
    const written = new Set(slots);
    slots.forEach((slot, row) => {
      if (slot >= 0 && slots.lastIndexOf(slot) === row) {
        expectClose(entries.subarray(slot * width, (slot + 1) * width), expected.entries[row]!, 2e-6);
      }
    });
    for (let slot = 0; slot < PAGE * PAGES; slot++) {
      const entry = entries.subarray(slot * width, (slot + 1) * width);
      if (!written.has(slot)) expect(entry.every(Number.isNaN)).toBe(true);
    }
  });

  it.each(["f16", "bf16", "fp8"] as const)(
    "append n=12 512+64 %s: the bits of base's rounding",
    async (cacheDtype) => {
      const shape = { ...cases[0]!, rows: 12, heads: 1 };
      const exact = new Float32Array((await runPrologue(device, shape)).pool);
      const { pool, slots, entryBytes } = await runPrologue(device, { ...shape, cacheDtype });
      for (const slot of slots) {
        if (slot < 0) continue;
        const entry = exact.slice(slot * 576, (slot + 1) * 576);
        const encoded =
          cacheDtype === "fp8"
            ? encodeFp8Entry(entry.subarray(0, 512), entry.subarray(512))
            : new Uint8Array((cacheDtype === "f16" ? toF16(entry) : toBf16(entry)).buffer);
        expect(new Uint8Array(pool, slot * entryBytes, entryBytes)).toEqual(encoded);
      }
    },
  );

  it("decode n=1 and n=11 of one batch: the same bits", async () => {
    const shape = { ...cases[1]!, rows: 11 };
    const wide = await runPrologue(device, shape, 64);
    const narrowBucket = await runPrologue(device, shape, 11);
    const live = 11 * 2 * wide.outWidth;
    expect(narrowBucket.queries.subarray(0, live)).toEqual(wide.queries.subarray(0, live));
  });

  it("latentWidth=12: a RangeError that names it", async () => {
    const shape = { ...cases[0]!, widths: [12, 4, 4, 4] as const };
    await expect(runPrologue(device, shape)).rejects.toThrow(/latentWidth|columns/);
  });
});
