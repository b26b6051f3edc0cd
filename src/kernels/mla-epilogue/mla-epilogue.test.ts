import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testDevices } from "../../../tests/fixtures/devices.ts";
import { toBf16 } from "../../base/bf16.ts";
import { decodeToF32 } from "../../base/convert.ts";
import { toF16 } from "../../base/f16.ts";
import { createRandom } from "../../base/random.ts";
import type { Device } from "../../device/device.ts";
import { mlaDecodeLayout, mlaDecodeWorkspaceBytes } from "../common/mla-partials.ts";
import { mlaEpilogue } from "./mla-epilogue.ts";
import { mlaEpilogueReference } from "./reference.ts";

type Dtype = "bf16" | "f16" | "f32";

/** Random partials of `live` sequences (a fifth of the splits empty, the first row wholly) in a NaN workspace. */
function makePartials(sizes: Parameters<typeof mlaDecodeLayout>[0], live: number, seed: number) {
  const random = createRandom(seed);
  const { splits, statsOffset } = mlaDecodeLayout(sizes);
  const rows = sizes.sQ * sizes.heads;
  const data = new Float32Array(mlaDecodeWorkspaceBytes(sizes) / 4).fill(Number.NaN);
  const at = (sequence: number, split: number, row: number) => (sequence * splits + split) * rows + row;
  for (let i = 0; i < live * splits * rows; i++) {
    const empty = random.uniform() < 0.2 || i % rows === 0;
    data.set(empty ? [-1e30, 0] : [20 * random.normal(), 1 + 255 * random.uniform()], statsOffset + 2 * i);
    if (!empty) data.set(random.normals(sizes.latentWidth, 9), i * sizes.latentWidth);
  }
  const row = (sequence: number, index: number) => {
    const ids = Array.from({ length: splits }, (_, split) => at(sequence, split, index));
    return {
      outs: ids.map((id) => data.subarray(id * sizes.latentWidth, (id + 1) * sizes.latentWidth)),
      maxima: ids.map((id) => data[statsOffset + 2 * id]!),
      sums: ids.map((id) => data[statsOffset + 2 * id + 1]!),
    };
  };
  return { data, row };
}

function storedAs(dtype: Dtype, values: Float32Array): Uint8Array {
  const stored = dtype === "f32" ? values : dtype === "f16" ? toF16(values) : toBf16(values);
  return new Uint8Array(stored.buffer);
}

// live sequences, s_q, heads, d_c, d_n, d_v, weights, maxLen
const cases: readonly [number, number, number, number, number, number, Dtype, number][] = [
  [1, 1, 3, 512, 16, 128, "bf16", 900],
  [1, 1, 2, 256, 0, 7, "f16", 100],
  [3, 1, 4, 128, 8, 64, "f32", 300],
  [9, 2, 2, 256, 5, 30, "bf16", 5000],
];

describe.each(testDevices)("mla-epilogue, $name", ({ open }) => {
  let device: Device;
  beforeAll(async () => {
    device = await open();
  });
  afterAll(() => device.close());

  it.each(cases)(
    "b=%i s_q=%i h=%i d_c=%i d_n=%i d_v=%i %s maxLen=%i: within 4e-6 of float64",
    async (...shape) => {
      const [live, sQ, heads, latentWidth, nopeWidth, valueWidth, dtype, maxLen] = shape;
      const sizes = { batch: live + 1, sQ, heads, latentWidth, ropeWidth: 32, maxLen };
      const { data, row } = makePartials(sizes, live, heads * 10 + live);
      const weightRows = heads * (nopeWidth + valueWidth);
      const stored = storedAs(dtype, createRandom(5).normals(weightRows * latentWidth, latentWidth ** -0.5));
      const weights = decodeToF32(stored, dtype);
      const upload = (label: string, bytes: ArrayBufferView) => {
        const buffer = device.allocate(bytes.byteLength, label);
        device.write(buffer, bytes);
        return buffer;
      };
      const out = device.allocate(sizes.batch * sQ * heads * valueWidth * 4, "out");
      const program = device.record((launch) =>
        mlaEpilogue(launch, {
          ...sizes,
          partials: upload("partials", data),
          kvB: { buffer: upload("kvB", stored), dtype, rows: weightRows, columns: latentWidth },
          nopeWidth,
          valueWidth,
          out,
          batchCount: upload("batchCount", new Int32Array([live])),
        }),
      );
      program.run();
      await program.idle();
      const actual = new Float32Array(await device.read(out, 0, out.bytes));
      let worst = 0;
      for (let token = 0; token < live * sQ; token++) {
        for (let head = 0; head < heads; head++) {
          const first = head * (nopeWidth + valueWidth) + nopeWidth;
          const projection = Array.from({ length: valueWidth }, (_, i) =>
            weights.subarray((first + i) * latentWidth, (first + i + 1) * latentWidth),
          );
          const splits = row(Math.floor(token / sQ), (token % sQ) * heads + head);
          mlaEpilogueReference(splits, projection).forEach((value, i) => {
            const error = Math.abs(actual[(token * heads + head) * valueWidth + i]! - value);
            worst = Number.isNaN(error) ? Number.NaN : Math.max(worst, error);
          });
        }
      }
      expect(worst).toBeLessThan(4e-6);
      expect(actual.subarray(live * sQ * heads * valueWidth).every(Number.isNaN)).toBe(true);
      program.free();
    },
  );
});
