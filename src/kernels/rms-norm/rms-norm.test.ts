import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testDevices } from "../../../tests/fixtures/devices.ts";
import { createRandom } from "../../base/random.ts";
import type { Device } from "../../device/device.ts";
import { rmsNormReference } from "./reference.ts";
import { rmsNorm } from "./rms-norm.ts";

describe.each(testDevices)("rms-norm, $name", ({ open }) => {
  let device: Device;
  beforeAll(async () => {
    device = await open();
  });
  afterAll(() => device.close());

  it.each([
    [1, 4],
    [3, 96],
    [64, 160],
    [7, 1024],
  ])("rows=%i width=%i: within 8e-6 of float64, padding rows untouched", async (rows, width) => {
    const random = createRandom(rows * 1000 + width);
    const x = Float32Array.from({ length: rows * width }, () => random.normal());
    const weight = Float32Array.from({ length: width }, () => 1 + 0.1 * random.normal());
    const maxRows = rows + 2;
    const buffers = {
      x: device.allocate(maxRows * width * 4, "x"),
      weight: device.allocate(width * 4, "weight"),
      out: device.allocate(maxRows * width * 4, "out"),
      rowCount: device.allocate(4, "rowCount"),
    };
    device.write(buffers.x, x);
    device.write(buffers.weight, weight);
    device.write(buffers.rowCount, new Int32Array([rows]));
    const program = device.record((launch) => rmsNorm(launch, { ...buffers, maxRows, width, epsilon: 1e-6 }));
    program.run();
    await program.idle();
    const out = new Float32Array(await device.read(buffers.out, 0, maxRows * width * 4));
    const expected = rmsNormReference(x, weight, 1e-6);
    for (let i = 0; i < expected.length; i++) expect(Math.abs(out[i]! - expected[i]!)).toBeLessThan(8e-6);
    expect(out.subarray(rows * width).every(Number.isNaN)).toBe(true);
    program.free();
  });

  it("rows=3 width=96: in place gives the same bits", async () => {
    const [rows, width] = [3, 96];
    const random = createRandom(7);
    const values = Float32Array.from({ length: rows * width }, () => random.normal());
    const x = device.allocate(values.byteLength, "x");
    const out = device.allocate(values.byteLength, "out");
    const weight = device.allocate(width * 4, "weight");
    const rowCount = device.allocate(4, "rowCount");
    device.write(x, values);
    device.write(weight, values.subarray(0, width));
    device.write(rowCount, new Int32Array([rows]));
    const args = { x, weight, rowCount, maxRows: rows, width, epsilon: 1e-6 };
    const program = device.record((launch) => {
      rmsNorm(launch, { ...args, out });
      rmsNorm(launch, { ...args, out: x });
    });
    program.run();
    expect(await device.read(x, 0, x.bytes)).toEqual(await device.read(out, 0, out.bytes));
    program.free();
  });
});
