// What only CUDA does with products: norms on the way, two matrices at once, rows rounded to bf16 for cuBLASLt, and the same bits for a
// row whatever is beside it.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { createRandom } from "../../dist/base/random.js";
import { openDevice } from "../../dist/device/index.js";
import { expertMlp, expertMlpWorkspaceBytes } from "../../dist/kernels/expert-mlp/expert-mlp.js";
import { roundedMlpBytes } from "../../dist/kernels/gated-mlp/gated-mlp.cuda.js";
import { gatedMlp } from "../../dist/kernels/gated-mlp/gated-mlp.js";
import { linear, linearPair } from "../../dist/kernels/linear/linear.js";
import { matricesOn } from "./matrices.mjs";

let device;
before(async () => {
  device = await openDevice({ kind: "cuda", poison: true });
});
after(() => device.close());

const { upload, matrix } = matricesOn(() => device);

function product(x, rows, { values, weight }) {
  const { rows: outputs, columns } = weight;
  return Float64Array.from({ length: rows * outputs }, (_, i) => {
    const [row, output] = [Math.floor(i / outputs), i % outputs];
    let sum = 0;
    for (let k = 0; k < columns; k++) sum += x[row * columns + k] * values[output * columns + k];
    return sum;
  });
}

function normed(x, rows, width, weight, epsilon) {
  return Float64Array.from({ length: rows * width }, (_, i) => {
    const row = Math.floor(i / width);
    let squares = 0;
    for (let k = 0; k < width; k++) squares += x[row * width + k] ** 2;
    return (x[i] / Math.sqrt(squares / width + epsilon)) * weight[i % width];
  });
}

async function floats(buffer, count) {
  return new Float32Array(await device.read(buffer, 0, 4 * count));
}

function worst(got, expected) {
  return expected.reduce((most, value, i) => Math.max(most, Math.abs(got[i] - value)), 0);
}

function run(step) {
  const program = device.record(step);
  program.run();
  program.free();
}

describe("products", () => {
  for (const rows of [1, 3, 8, 13]) {
    it(`rows=${rows}: two matrices over a normed input in one launch`, async () => {
      const width = 1096;
      const [first, second] = [matrix(1, 515, width), matrix(2, 40, width)];
      const x = createRandom(3).normals(rows * width, 3);
      const norm = createRandom(4)
        .normals(width, 0.2)
        .map((value) => 1 + value);
      const [out, out2] = [device.allocate(16 * 515 * 4, "out"), device.allocate(16 * 40 * 4, "out2")];
      const shared = { x: upload(x, 16 * width * 4), norm: { weight: upload(norm), epsilon: 1e-5 } };
      const count = { rowCount: upload(new Int32Array([rows])), maxRows: 16 };
      const [one, two] = [
        { weight: first.weight, out },
        { weight: second.weight, out: out2 },
      ];
      run((launch) => linearPair(launch, { ...shared, ...count, first: one, second: two }));
      const truth = normed(x, rows, width, norm, 1e-5);
      assert.ok(worst(await floats(out, rows * 515), product(truth, rows, first)) < 1e-5);
      assert.ok(worst(await floats(out2, rows * 40), product(truth, rows, second)) < 1e-5);
      assert.ok((await floats(out, 16 * 515)).subarray(rows * 515).every(Number.isNaN));
    });
  }

  it("a row has the same bits alone, among 8, among 16 and among 40", async () => {
    const width = 2056;
    const { weight } = matrix(5, 333, width);
    const x = createRandom(6).normals(40 * width);
    const outOf = async (rows) => {
      const out = device.allocate(rows * 333 * 4, "out");
      const count = { rowCount: upload(new Int32Array([rows])), maxRows: rows };
      run((launch) => linear(launch, { x: upload(x), weight, out, mode: "store", ...count }));
      return floats(out, 333);
    };
    const alone = await outOf(1);
    for (const rows of [8, 16, 40]) assert.deepEqual(await outOf(rows), alone);
  });

  it("rows=200 rounded to bf16: within its rounding of float64; stored and added", async () => {
    const [rows, width] = [200, 512];
    const one = matrix(7, 384, width);
    const x = createRandom(8).normals(rows * width);
    const truth = product(x, rows, one);
    const out = device.allocate(rows * 384 * 4, "out");
    const rounded = device.allocate(rows * width * 2, "rounded");
    const args = { x: upload(x), weight: one.weight, out, rounded, scale: 0.5 };
    const count = { rowCount: upload(new Int32Array([rows])), maxRows: rows };
    run((launch) => linear(launch, { ...args, mode: "store", ...count }));
    assert.ok(
      worst(
        await floats(out, rows * 384),
        truth.map((value) => value / 2),
      ) < 0.02,
    );
    run((launch) => linear(launch, { ...args, mode: "accumulate", ...count }));
    assert.ok(worst(await floats(out, rows * 384), truth) < 0.04);
  });

  for (const weightByInputs of [false, true]) {
    it(`3 products at once by cuBLASLt, weights ${weightByInputs ? "by inputs" : "by outputs"}: float64 within bf16`, async () => {
      const [count, rows, inputs, outputs] = [3, 5, 64, 48];
      const x = matrix(20, rows * count, inputs + 8);
      const weight = matrix(21, count * (inputs + 8), outputs);
      const out = device.allocate(rows * count * (outputs + 16) * 4, "out");
      const strides = { xStride: inputs + 8, weightStride: (inputs + 8) * outputs, outStride: outputs + 16 };
      const pitches = { xPitch: count * (inputs + 8), outPitch: count * (outputs + 16) };
      const cublas = {
        ...{ rows, inputs, outputs, inputType: "bf16", outType: "f32", mode: "store", scale: 1 },
        batch: { count, weightByInputs, ...strides, ...pitches },
      };
      const source = { name: "products", buffers: ["x", "weight", "out"], scalars: [], cublas };
      run((launch) => launch(source, 1, [x.weight.buffer, weight.weight.buffer, out]));
      const got = await floats(out, out.bytes / 4);
      for (let i = 0; i < got.length; i++) {
        const [row, column] = [Math.floor(i / (outputs + 16)), i % (outputs + 16)];
        if (column >= outputs) {
          assert.ok(Number.isNaN(got[i]));
          continue;
        }
        const first = (row % count) * (inputs + 8) * outputs;
        let sum = 0;
        for (let k = 0; k < inputs; k++) {
          const at = weightByInputs ? k * outputs + column : column * inputs + k;
          sum += x.values[row * (inputs + 8) + k] * weight.values[first + at];
        }
        assert.ok(Math.abs(got[i] - sum) < 1e-4, `row ${row}, column ${column}: ${got[i]} for ${sum}`);
      }
    });
  }

  it("rows=70: a gated MLP rounded to bf16 is near the one in float32", async () => {
    const [rows, hidden, intermediate] = [70, 256, 640];
    const [gate, up] = [matrix(9, intermediate, hidden), matrix(10, intermediate, hidden)];
    const down = matrix(11, hidden, intermediate);
    const x = upload(createRandom(12).normals(rows * hidden));
    const count = { rowCount: upload(new Int32Array([rows])), maxRows: rows };
    const results = [];
    for (const rounded of [
      undefined,
      device.allocate(roundedMlpBytes(rows, hidden, intermediate), "rounded"),
    ]) {
      const out = device.allocate(rows * hidden * 4, "out");
      const workspace = device.allocate(rows * intermediate * 4, "workspace");
      const weights = { gate: gate.weight, up: up.weight, down: down.weight };
      run((launch) => gatedMlp(launch, { x, ...weights, out, mode: "store", workspace, rounded, ...count }));
      results.push(await floats(out, rows * hidden));
    }
    assert.ok(worst(results[1], results[0]) < 0.02);
  });

  it("rows=150, 16 experts, 3 a row: experts rounded to bf16 are near those in float32", async () => {
    const [rows, experts, perToken, hidden, intermediate] = [150, 16, 3, 264, 200];
    const wide = experts * intermediate;
    const [gate, up] = [matrix(13, wide, hidden).weight, matrix(14, wide, hidden).weight];
    const shape = { maxRows: rows, experts, perToken, hidden, intermediate };
    const random = createRandom(15);
    const ids = Int32Array.from({ length: rows * perToken }, (_, i) => {
      const first = Math.floor(i / perToken) % 5 === 0 ? 2 : Math.floor(i / perToken) * 7;
      return (first + (i % perToken) * 5) % experts;
    });
    const shared = {
      ...{ ...shape, x: upload(random.normals(rows * hidden)), expertIds: upload(ids) },
      expertWeights: upload(Float32Array.from({ length: rows * perToken }, () => random.uniform())),
      gateUp: { layout: "separate", gate, up },
      down: matrix(16, experts * hidden, intermediate).weight,
      ...{ mode: "store", rowCount: upload(new Int32Array([rows - 3])) },
    };
    const results = [];
    for (const rounded of [undefined, device.allocate(rows * hidden * 2, "rounded")]) {
      const out = device.allocate(rows * hidden * 4, "out");
      const workspace = device.allocate(expertMlpWorkspaceBytes(shape), "workspace");
      run((launch) => expertMlp(launch, { ...shared, out, workspace, rounded }));
      results.push(await floats(out, rows * hidden));
    }
    const live = (rows - 3) * hidden;
    assert.ok(worst(results[1].subarray(0, live), results[0].subarray(0, live)) < 0.02);
    assert.ok(results[1].subarray(live).every(Number.isNaN));
  });
});
