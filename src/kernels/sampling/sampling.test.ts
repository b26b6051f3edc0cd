import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testDevices } from "../../../tests/fixtures/devices.ts";
import { createRandom } from "../../base/random.ts";
import type { Device } from "../../device/device.ts";
import { packSamplingParams, type SamplingParams } from "./params.ts";
import { philoxReference, samplingReference } from "./reference.ts";
import { sampling } from "./sampling.ts";

const plain: SamplingParams = { temperature: 1, topK: 0, topP: 1, minP: 0, seed: 7, step: 0 };

async function draw(
  device: Device,
  logits: readonly Float32Array[],
  params: readonly SamplingParams[],
  validVocab = logits[0]!.length,
): Promise<Int32Array> {
  const vocab = logits[0]!.length;
  const maxRows = logits.length + 1;
  const buffers = {
    logits: device.allocate(maxRows * vocab * 4, "logits"),
    params: device.allocate(maxRows * 32, "params"),
    out: device.allocate(maxRows * 4, "out"),
    workspace: device.allocate(maxRows * vocab * 4, "workspace"),
    rowCount: device.allocate(4, "rowCount"),
  };
  logits.forEach((row, index) => {
    device.write(buffers.logits, row, index * vocab * 4);
  });
  device.write(buffers.params, packSamplingParams(params));
  device.write(buffers.rowCount, new Int32Array([logits.length]));
  const program = device.record((launch) => sampling(launch, { ...buffers, maxRows, vocab, validVocab }));
  program.run();
  const out = new Int32Array(await device.read(buffers.out, 0, maxRows * 4));
  expect(out[logits.length]).toBe(-1);
  program.free();
  for (const buffer of Object.values(buffers)) buffer.free();
  return out.subarray(0, logits.length);
}

function expectDrawn(id: number, probabilities: Float64Array, params: SamplingParams): void {
  const u = philoxReference(params.seed, params.step) / 2 ** 32;
  const before = probabilities.subarray(0, id).reduce((sum, value) => sum + value, 0);
  expect(probabilities[id]).toBeGreaterThan(0);
  expect(u).toBeGreaterThan(before - 1e-5);
  expect(u).toBeLessThan(before + probabilities[id]! + 1e-5);
}

it("the generator is Philox4x32-10: Random123's known answer", () => {
  expect(philoxReference(0, 0)).toBe(0x6627e8d5);
});

it("params out of range are refused by name", () => {
  expect(() => packSamplingParams([{ ...plain, topP: 1.5 }])).toThrow(
    "topP must be a finite number from 0 to 1, got 1.5",
  );
  expect(() => packSamplingParams([{ ...plain, temperature: -1 }])).toThrow("temperature");
  expect(() => packSamplingParams([{ ...plain, topK: 1.5 }])).toThrow("topK");
});

describe.each(testDevices)("sampling, $name", ({ open }) => {
  let device: Device;
  beforeAll(async () => {
    device = await open();
  });
  afterAll(() => device.close());

  const cases: [number, Partial<SamplingParams>][] = [
    [1, {}],
    [5, {}],
    [1000, {}],
    [4099, { temperature: 0.7 }],
    [1000, { topK: 1 }],
    [1000, { topK: 40, temperature: 1.5 }],
    [1000, { topP: 0.9 }],
    [1000, { topP: 0 }],
    [1000, { minP: 0.1 }],
    [4099, { topK: 50, topP: 0.8, minP: 0.05, temperature: 0.9 }],
    [1000, { topK: 5000, seed: 2 ** 40 + 3 }],
  ];
  it.each(cases)("vocab=%i %o: 24 rows draw what float64 draws", async (vocab, change) => {
    const random = createRandom(vocab);
    const logits = Array.from({ length: 24 }, () =>
      Float32Array.from({ length: vocab }, () => 2 * random.normal()),
    );
    const params = logits.map((_, step) => ({ ...plain, ...change, step }));
    const ids = await draw(device, logits, params);
    ids.forEach((id, row) => {
      expectDrawn(id, samplingReference(logits[row]!, params[row]!), params[row]!);
    });
  });

  it("vocab=64 equal logits: top-k and top-p keep the lowest ids; greedy takes the first", async () => {
    const flat = Array.from({ length: 64 }, () => new Float32Array(64).map((_, id) => (id % 2 ? -0 : 0)));
    for (const change of [{ topK: 5 }, { topP: 5 / 64 }]) {
      const ids = await draw(
        device,
        flat,
        flat.map((_, step) => ({ ...plain, ...change, step })),
      );
      expect([...new Set(ids)].sort()).toEqual([0, 1, 2, 3, 4]);
    }
    expect([...(await draw(device, flat.slice(0, 2), Array(2).fill({ ...plain, temperature: 0 })))]).toEqual([
      0, 0,
    ]);
  });

  it("vocab=9 validVocab=6: padding, NaN and -Infinity are never drawn", async () => {
    const row = Float32Array.of(-Infinity, 1, Number.NaN, 1, -Infinity, Number.NaN, 9, 9, Infinity);
    const rows = Array.from({ length: 32 }, () => row);
    const sampled = await draw(
      device,
      rows,
      rows.map((_, step) => ({ ...plain, topP: 0.99, step })),
      6,
    );
    expect([...new Set(sampled)].sort()).toEqual([1, 3]);
    expect([...(await draw(device, [row], [{ ...plain, temperature: 0 }], 6))]).toEqual([1]);
  });

  it("vocab=16 a row's draw does not depend on its neighbours", async () => {
    const random = createRandom(5);
    const rows = Array.from({ length: 8 }, () => Float32Array.from({ length: 16 }, () => random.normal()));
    const params = rows.map((_, step) => ({ ...plain, step }));
    const together = await draw(device, rows, params);
    for (const [row, logits] of rows.entries()) {
      expect((await draw(device, [logits], [params[row]!]))[0]).toBe(together[row]);
    }
  });
});
