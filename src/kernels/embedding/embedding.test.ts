import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testDevices } from "../../../tests/fixtures/devices.ts";
import { decodeToF32, encodeFromF32 } from "../../base/convert.ts";
import { createRandom } from "../../base/random.ts";
import type { Device, Launch } from "../../device/device.ts";
import { embedding } from "./embedding.ts";
import { embeddingReference } from "./reference.ts";

describe.each(testDevices)("embedding, $name", ({ open }) => {
  let device: Device;
  beforeAll(async () => {
    device = await open();
  });
  afterAll(() => device.close());

  it.each([
    [1, 8, "bf16", 1],
    [5, 160, "f16", 12],
    [64, 1024, "bf16", 0.5],
    [3, 24, "f32", 1],
  ] as const)(
    "rows=%i hidden=%i %s scale=%f: exact, padding rows untouched",
    async (rows, hidden, dtype, scale) => {
      const vocab = 19;
      const random = createRandom(rows + hidden);
      const values = Float32Array.from({ length: vocab * hidden }, (_, i) =>
        i % 7 === 0 ? 3e-6 * random.normal() : random.normal(),
      );
      const bytes = encodeFromF32(values, dtype);
      const ids = Int32Array.from({ length: rows }, () => Math.floor(random.uniform() * vocab));
      if (rows > 2) ids.set([-1, vocab], 1);
      const maxRows = rows + 2;
      const table = device.allocate(bytes.byteLength, "table");
      const idBuffer = device.allocate(maxRows * 4, "ids");
      const out = device.allocate(maxRows * hidden * 4, "out");
      const rowCount = device.allocate(4, "rowCount");
      device.write(table, bytes);
      device.write(idBuffer, ids);
      device.write(rowCount, new Int32Array([rows]));
      const matrix = { buffer: table, dtype, rows: vocab, columns: hidden };
      const program = device.record((launch) =>
        embedding(launch, { ids: idBuffer, table: matrix, scale, out, rowCount, maxRows }),
      );
      program.run();
      await program.idle();
      const result = new Float32Array(await device.read(out, 0, out.bytes));
      const expected = embeddingReference(ids, decodeToF32(bytes, dtype), hidden, scale);
      expect(result.slice(0, rows * hidden)).toEqual(Float32Array.from(expected));
      expect(result.subarray(rows * hidden).every(Number.isNaN)).toBe(true);
      program.free();
    },
  );

  it("a table over WebGPU's binding limit: in parts, the same rows", async () => {
    const [rows, vocab, hidden] = [33, 19, 160];
    const random = createRandom(9);
    const bytes = encodeFromF32(
      Float32Array.from({ length: vocab * hidden }, () => random.normal()),
      "f16",
    );
    const ids = Int32Array.from({ length: rows }, (_, i) => (i % (vocab + 2)) - 1);
    const table = device.allocate(bytes.byteLength, "table");
    const idBuffer = device.allocate(rows * 4, "ids");
    const out = device.allocate(rows * hidden * 4, "out");
    const rowCount = device.allocate(4, "rowCount");
    device.write(table, bytes);
    device.write(idBuffer, ids);
    device.write(rowCount, new Int32Array([rows]));
    const matrix = { buffer: table, dtype: "f16", rows: vocab, columns: hidden } as const;
    let launches = 0;
    const program = device.record((launch) => {
      const { webgpu } = launch.target.limits;
      const limits = { ...launch.target.limits, webgpu: webgpu && { ...webgpu, bindingBytes: 2048 } };
      const counted = (...one: Parameters<Launch>) => {
        launches++;
        launch(...one);
      };
      const narrow = Object.assign(counted, { target: { ...launch.target, kind: device.kind, limits } });
      embedding(narrow as Launch, { ids: idBuffer, table: matrix, scale: 2, out, rowCount, maxRows: rows });
    });
    program.run();
    await program.idle();
    const result = new Float32Array(await device.read(out, 0, out.bytes));
    expect(result).toEqual(Float32Array.from(embeddingReference(ids, decodeToF32(bytes, "f16"), hidden, 2)));
    // Four rows of 320 bytes begin at a multiple of 256.
    expect(launches).toBe(device.kind === "webgpu" ? 5 : 1);
    program.free();
  });
});
