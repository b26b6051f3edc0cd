// `bench compare` on CUDA: every form's decoder gives the CPU's logits, from the same random weights and caches.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { CompareArena } from "../../dist/bench/compare/arena.js";
import { makeDecoder, recordDecoder } from "../../dist/bench/compare/decoder.js";
import { runCompare } from "../../dist/bench/compare/run.js";
import { compareForms, compareShapes } from "../../dist/bench/compare/shapes.js";
import { openDevice } from "../../dist/device/open.js";

/** Relative to the largest logit: on CUDA queries and outputs of latent attention are bf16. */
const TOLERANCE = 0.03;
/** Few rows stream past the weights; many are rounded to bf16 and multiplied by cuBLASLt. */
const cells = [
  { batch: 3, context: 700 },
  { batch: 20, context: 130 },
];
const shape = { ...compareShapes.tiny, ropeWidth: 64, heads: 16, headWidth: 128, hidden: 512 };
let cpu;
let cuda;

before(async () => {
  cpu = await openDevice({ kind: "cpu" });
  cuda = await openDevice({ kind: "cuda", poison: true });
});
after(async () => {
  await cpu.close();
  await cuda.close();
});

async function logitsOn(device, form, cell) {
  const arena = new CompareArena(device);
  const decoder = makeDecoder(arena, shape, form, cell);
  const program = device.record((launch) => recordDecoder(launch, shape, form, cell, decoder));
  program.run();
  await program.idle();
  const logits = new Float32Array(await device.read(decoder.logits, 0, decoder.logits.bytes));
  program.free();
  arena.free();
  return logits;
}

for (const [form, cell] of compareForms.flatMap((form) => cells.map((cell) => [form, cell]))) {
  test(`${form.id}, ${cell.batch} × ${cell.context}: the CPU's logits`, async () => {
    const [expected, actual] = [await logitsOn(cpu, form, cell), await logitsOn(cuda, form, cell)];
    const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const worst = expected.reduce((most, value, i) => Math.max(most, Math.abs(value - actual[i])), 0);
    console.log(`${form.id}: worst ${worst.toExponential(2)} of ${largest.toFixed(2)}`);
    assert.ok(worst <= TOLERANCE * largest, `${worst} of ${largest}`);
  });
}

test("every row of both scopes is measured, memory given back", async () => {
  const rows = await runCompare({
    ...{ device: cuda, shape, scopes: ["attention", "model"], contexts: [512, 2048], batches: [1, 16] },
    seconds: 60,
  });
  for (const { form, scope, outcome } of rows) {
    assert.equal(outcome.status, "measured", `${scope} ${form}: ${outcome.reason}`);
  }
  assert.equal(cuda.memory.usedBytes, 0);
});
