// Where a decoding step's time goes on CUDA, launches overlapping as they do: the step is recorded anew up to each launch of some of its
// layers and timed as a graph; what one launch more costs is its share. Medians over those layers.
//
//   node benchmarks/cuda/timeline.mjs mla-7b 1 4096 [layers=4] [json]

import { BatchDriver } from "../../dist/bench/batch-driver.js";
import { presetConfig } from "../../dist/bench/model-presets.js";
import { randomModel } from "../../dist/bench/random-model.js";
import { openDevice } from "../../dist/device/index.js";

const [shape = "mla-7b", batch = 1, tokens = 4096, layers = 4, format = "text"] = process.argv.slice(2);
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

const device = await openDevice({ kind: "cuda" });
const steps = [];
const record = device.record.bind(device);
device.record = (step) => {
  steps.push(step);
  return record(step);
};

/** Records the first `count` launches of a step; gives their names too. */
function recordPrefix(step, count) {
  const names = [];
  const program = record((launch) => {
    const some = (source, grid, ...rest) => {
      if (grid > 0 && names.length < count) {
        names.push(source.name);
        launch(source, grid, ...rest);
      }
    };
    step(Object.assign(some, { target: launch.target }));
  });
  return { program, names };
}

async function microseconds(program) {
  const times = [];
  for (let run = 0; run < 9; run++) times.push(1000 * (await program.time()));
  return median(times.slice(2));
}

const config = presetConfig(shape);
const room = Number(tokens) + 64;
const sizes = {
  maxContext: room,
  cacheTokens: Number(batch) * (room + 64),
  maxDecodeRows: Number(batch),
  maxChunkTokens: 1,
};
const model = randomModel(device, config, sizes);
const driver = new BatchDriver(model, Number(batch), Number(tokens), 8);
for (let run = 0; run < 4; run++) await driver.decode();
// The whole step is the longest of the recordings, and the last.
const whole = steps.at(-1);
const { names, program } = recordPrefix(whole, Number.POSITIVE_INFINITY);
const all = await microseconds(program);
program.free();
// Layers from one prologue of attention to the next.
const starts = names.flatMap((name, i) => (name.startsWith("mla-prologue") ? [i] : []));
const last = starts.at(-1);
const period = last - starts.at(-2);
const first = last - Number(layers) * period;
const shares = Array.from({ length: period }, () => []);
let before = null;
for (let count = first; count <= last; count++) {
  const { program: prefix } = recordPrefix(whole, count);
  const time = await microseconds(prefix);
  prefix.free();
  if (before !== null) shares[(count - first - 1) % period].push(time - before);
  before = time;
}
const rows = shares.map((times, i) => ({ name: names[first + i], microseconds: median(times) }));
const layer = rows.reduce((sum, row) => sum + row.microseconds, 0);
if (format === "json") {
  console.log(
    JSON.stringify({
      shape,
      batch: Number(batch),
      tokens: Number(tokens),
      launches: names.length,
      step: all,
      layer: rows,
    }),
  );
} else {
  console.log(
    `${shape}, ${batch} × ${tokens}: ${names.length} launches, ${(all / 1000).toFixed(3)} ms; a layer ${period} launches, ${layer.toFixed(1)} µs`,
  );
  console.log(rows.map((row) => `${row.name} ${row.microseconds.toFixed(1)}`).join(" | "));
}
model.close();
await device.close();
