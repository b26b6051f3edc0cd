// Products of a few rows that run as parts of one launch on Hopper: a layer's, against float64, several times in a row.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { decodeToF32, encodeFromF32 } from "../../dist/base/convert.js";
import { createRandom } from "../../dist/base/random.js";
import { openDevice } from "../../dist/device/index.js";
import { expertMlp, expertMlpWorkspaceBytes } from "../../dist/kernels/expert-mlp/expert-mlp.js";
import { expertRouting } from "../../dist/kernels/expert-routing/expert-routing.js";
import { gatedMlp, gatedMlpGateUp } from "../../dist/kernels/gated-mlp/gated-mlp.js";
import { linear, linearPair } from "../../dist/kernels/linear/linear.js";
import { matricesOn } from "./matrices.mjs";

let device;
before(async () => {
  device = await openDevice({ kind: "cuda", poison: true });
});
after(() => device.close());

const { upload, matrix } = matricesOn(() => device);

function multiply(x, { values, weight: { rows, columns } }) {
  return Float64Array.from({ length: rows }, (_, output) => {
    let sum = 0;
    for (let k = 0; k < columns; k++) sum += x[k] * values[output * columns + k];
    return sum;
  });
}

function normed(x, weight, epsilon) {
  const squares = x.reduce((sum, value) => sum + value * value, 0);
  return x.map((value, i) => (value / Math.sqrt(squares / x.length + epsilon)) * weight[i]);
}

const worst = (got, expected) =>
  expected.reduce((most, value, i) => {
    const off = Math.abs(got[i] - value);
    return off <= most ? most : off;
  }, 0);

const ROWS = 16;
const [hidden, values, inner, query, latent] = [1024, 1088, 1600, 1000, 137];
const epsilon = 1e-5;

/** Weights and inputs of one layer from its attention's values on, and what float64 makes of each row. */
function layer() {
  const weights = {
    output: matrix(1, hidden, values),
    gate: matrix(2, inner, hidden),
    up: matrix(3, inner, hidden),
    down: matrix(4, hidden, inner),
    query: matrix(5, query, hidden),
    latent: matrix(6, latent, hidden),
  };
  const random = createRandom(7);
  const x = random.normals(ROWS * values);
  const residual = random.normals(ROWS * hidden, 3);
  const norms = [random.normals(hidden, 0.2), random.normals(hidden, 0.2)].map((w) => w.map((v) => 1 + v));
  const truth = Array.from({ length: ROWS }, (_, row) => {
    const first = multiply(x.subarray(row * values, (row + 1) * values), weights.output);
    let h = first.map((value, i) => residual[row * hidden + i] + value / 2);
    const input = normed(h, norms[0], epsilon);
    const [gate, up] = [multiply(input, weights.gate), multiply(input, weights.up)];
    const mlp = gate.map((g, i) => (g / (1 + Math.exp(-g))) * up[i]);
    h = multiply(mlp, weights.down).map((value, i) => h[i] + value);
    const next = normed(h, norms[1], epsilon);
    return { hidden: h, query: multiply(next, weights.query), latent: multiply(next, weights.latent) };
  });
  return { weights, x, residual, norms: norms.map((w) => upload(w)), truth };
}

async function run({ weights, x, residual, norms }, rows, maxRows, times) {
  const room = (width) => device.allocate(ROWS * width * 4, "out");
  const [h, mlp, q, l] = [room(hidden), room(inner), room(query), room(latent)];
  const count = { rowCount: upload(new Int32Array([rows])), maxRows };
  const input = upload(x);
  const norm = (i) => ({ weight: norms[i], epsilon });
  const program = device.record((launch) => {
    const output = { x: input, weight: weights.output.weight, out: h, mode: "accumulate", scale: 0.5 };
    linear(launch, { ...output, ...count });
    const gated = { gate: weights.gate.weight, up: weights.up.weight, down: weights.down.weight };
    gatedMlp(launch, { x: h, norm: norm(0), ...gated, out: h, mode: "accumulate", workspace: mlp, ...count });
    const first = { weight: weights.query.weight, out: q };
    const second = { weight: weights.latent.weight, out: l };
    linearPair(launch, { x: h, norm: norm(1), first, second, ...count });
  });
  for (let time = 0; time < times; time++) {
    device.write(h, residual.subarray(0, rows * hidden));
    program.run();
  }
  const launches = program.launches.map(({ source }) => source.name);
  program.free();
  const read = async (buffer) => new Float32Array(await device.read(buffer, 0, buffer.bytes));
  return { hidden: await read(h), query: await read(q), latent: await read(l), launches };
}

describe("a chain of products", () => {
  let one;
  before(() => {
    one = layer();
  });

  for (const [rows, maxRows, times] of [
    [1, 1, 1],
    [1, 1, 50],
    [2, 2, 3],
    [3, 4, 3],
    [8, 8, 20],
    [13, 16, 3],
  ]) {
    it(`${rows} rows of ${maxRows}, ${times} times: float64, and nothing past the rows in use`, async () => {
      const got = await run(one, rows, maxRows, times);
      if (device.limits.features.has("sm_90") && maxRows === 1) {
        assert.deepEqual(got.launches, ["linear + gated-mlp.gate-up + linear + linear"]);
      }
      for (const [name, width] of [
        ["hidden", hidden],
        ["query", query],
        ["latent", latent],
      ]) {
        for (let row = 0; row < rows; row++) {
          const off = worst(got[name].subarray(row * width, (row + 1) * width), one.truth[row][name]);
          assert.ok(off < 2e-5, `${name}, row ${row}: off by ${off}`);
        }
        if (name !== "hidden") assert.ok(got[name].subarray(rows * width).every(Number.isNaN), name);
      }
    });
  }

  it("a row has the same bits alone, among 8, and among 16", async () => {
    const alone = await run(one, 1, 1, 1);
    for (const rows of [2, 8, 16]) {
      const among = await run(one, rows, rows, 1);
      for (const name of ["hidden", "query", "latent"]) {
        const width = alone[name].length / ROWS;
        assert.deepEqual(
          among[name].subarray(0, width),
          alone[name].subarray(0, width),
          `${name}, ${rows} rows`,
        );
      }
    }
  });

  for (const times of [1, 20]) {
    it(`a layer of routed and shared experts, one row, ${times} times: float64`, async () => {
      const got = await runExperts(one, times);
      if (device.limits.features.has("sm_90")) {
        const [routing, mlp] = ["linear + expert-routing", "expert-mlp.gate-up + expert-mlp.down"];
        assert.deepEqual(got.launches, [
          `linear + ${routing} + gated-mlp.gate-up + ${mlp} + linear + linear`,
        ]);
      }
      assert.deepEqual([...got.ids], got.truth.ids);
      for (const name of ["hidden", "query", "latent"]) {
        const off = worst(got[name], got.truth[name]);
        assert.ok(off < 2e-5, `${name} off by ${off}`);
      }
    });
  }
});

const [experts, perToken, expertInner] = [128, 6, 192];

/** Many weights, of one short row of random ones: what is the same lies at other places in every expert. */
function repeated(seed, rows, columns) {
  const some = matrix(seed, 1, 100_003);
  const short = new Uint16Array(encodeFromF32(some.values, "bf16").buffer.slice(0));
  const scale = Math.sqrt(100_003 / columns);
  const bits = new Uint16Array(
    encodeFromF32(
      some.values.map((v) => v * scale),
      "bf16",
    ).buffer,
  );
  const all = Uint16Array.from({ length: rows * columns }, (_, i) => bits[i % short.length]);
  return { weight: { buffer: upload(all), dtype: "bf16", rows, columns }, bits };
}

function rowsOf({ bits, weight: { columns } }, first, count) {
  const part = Uint16Array.from(
    { length: count * columns },
    (_, i) => bits[(first * columns + i) % bits.length],
  );
  return { values: decodeToF32(new Uint8Array(part.buffer), "bf16"), weight: { rows: count, columns } };
}

async function runExperts({ weights, x, residual, norms }, times) {
  const router = matrix(8, experts, hidden);
  const gate = repeated(9, experts * expertInner, hidden);
  const up = repeated(10, experts * expertInner, hidden);
  const down = repeated(11, experts * hidden, expertInner);
  const room = (count) => device.allocate(count * 4, "out");
  const [h, mlp, q, l] = [room(hidden), room(inner), room(query), room(latent)];
  const [logits, ids, expertWeights] = [room(experts), room(perToken), room(perToken)];
  const shape = { maxRows: 1, experts, perToken, hidden, intermediate: expertInner };
  const workspace = device.allocate(expertMlpWorkspaceBytes(shape), "workspace");
  const count = { rowCount: upload(new Int32Array([1])), maxRows: 1 };
  const input = upload(x.subarray(0, values));
  const [norm, last] = norms.map((weight) => ({ weight, epsilon }));
  const rule = {
    scoring: "softmax",
    selection: "greedy",
    groups: 1,
    groupsPerToken: 1,
    normalise: false,
    scale: 1.5,
    correctionBias: false,
  };
  const program = device.record((launch) => {
    const output = { x: input, weight: weights.output.weight, out: h, mode: "accumulate", scale: 0.5 };
    linear(launch, { ...output, ...count });
    linear(launch, { x: h, norm, weight: router.weight, out: logits, mode: "store", ...count });
    const chosen = { logits, bias: null, ids, weights: expertWeights, experts, perToken };
    expertRouting(launch, { ...chosen, router: rule, routerWeight: router.weight, ...count });
    gatedMlpGateUp(launch, {
      x: h,
      norm,
      gate: weights.gate.weight,
      up: weights.up.weight,
      out: mlp,
      ...count,
    });
    const gateUp = { layout: "separate", gate: gate.weight, up: up.weight };
    const routed = { x: h, norm, expertIds: ids, expertWeights, gateUp, down: down.weight, out: h };
    expertMlp(launch, { ...shape, ...routed, mode: "accumulate", scale: 1, workspace, ...count });
    linear(launch, { x: mlp, weight: weights.down.weight, out: h, mode: "accumulate", ...count });
    const first = { weight: weights.query.weight, out: q };
    const second = { weight: weights.latent.weight, out: l };
    linearPair(launch, { x: h, norm: last, first, second, ...count });
  });
  for (let time = 0; time < times; time++) {
    device.write(h, residual.subarray(0, hidden));
    program.run();
  }
  const launches = program.launches.map(({ source }) => source.name);
  program.free();
  const read = async (buffer) => new Float32Array(await device.read(buffer, 0, buffer.bytes));
  const host = { router, gate, up, down, weights, norms: await Promise.all(norms.map(read)) };
  return {
    ...{ hidden: await read(h), query: await read(q), latent: await read(l), launches },
    ids: new Int32Array(await device.read(ids, 0, ids.bytes)),
    truth: expertsTruth(host, x.subarray(0, values), residual.subarray(0, hidden)),
  };
}

/** The same in float64. */
function expertsTruth({ router, gate, up, down, weights, norms }, x, residual) {
  let h = multiply(x, weights.output).map((value, i) => residual[i] + value / 2);
  const input = normed(h, norms[0], epsilon);
  const logits = multiply(input, router);
  const sum = logits.reduce((all, value) => all + Math.exp(value), 0);
  const ids = [...logits.keys()].sort((a, b) => logits[b] - logits[a]).slice(0, perToken);
  const gated = (g, u) => g.map((value, i) => (value / (1 + Math.exp(-value))) * u[i]);
  const shared = gated(multiply(input, weights.gate), multiply(input, weights.up));
  const added = multiply(shared, weights.down);
  for (const id of ids) {
    const [g, u] = [gate, up].map((one) => multiply(input, rowsOf(one, id * expertInner, expertInner)));
    const weight = (1.5 * Math.exp(logits[id])) / sum;
    const out = multiply(gated(g, u), rowsOf(down, id * hidden, hidden));
    out.forEach((value, i) => {
      added[i] += weight * value;
    });
  }
  h = h.map((value, i) => value + added[i]);
  const next = normed(h, norms[1], epsilon);
  return { ids, hidden: h, query: multiply(next, weights.query), latent: multiply(next, weights.latent) };
}
