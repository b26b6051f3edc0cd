// Every command that takes --device cuda, at small sizes: exit code 0, and one JSON object as the last line.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const cli = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));

function run(parameters) {
  return new Promise((resolve) => {
    const options = { timeout: 60_000, maxBuffer: 2 ** 26 };
    execFile(process.execPath, [cli, ...parameters], options, (error, stdout, stderr) => {
      resolve({ code: error?.code ?? 0, stdout, stderr });
    });
  });
}

/** Runs a command that must end well; the JSON object of its last line. */
async function lastLine(...parameters) {
  const { code, stdout, stderr } = await run(parameters);
  assert.equal(code, 0, `${stdout.slice(-2000)}${stderr.slice(-2000)}`);
  return JSON.parse(stdout.trimEnd().split("\n").at(-1));
}

const onCuda = ["--device", "cuda"];

test("generate: the shipped model writes on the GPU", async () => {
  const { code, stdout, stderr } = await run([
    "generate",
    ...onCuda,
    "-p",
    "To be",
    "-n",
    "24",
    "--seed",
    "1",
  ]);
  assert.equal(code, 0, stderr);
  assert.ok(stdout.length > 24);
  assert.match(stderr + stdout, /device +cuda: NVIDIA/);
});

test("verify --quick: every kernel agrees with float64", async () => {
  const { isPassed, cases, impossible } = await lastLine("verify", ...onCuda, "--quick", "--json");
  assert.ok(isPassed && cases > 20);
  assert.deepEqual(impossible, []);
});

test("bench kernel: checked, cold and warm, beside ceilings of the same process", async () => {
  const flags = ["--case", "b=1 s_q=1 h=16 s=512", "--rounds", "3"];
  const { ceilings, results, failures } = await lastLine("bench", "kernel", ...onCuda, ...flags);
  assert.deepEqual(failures, []);
  assert.ok(ceilings.bytesPerSecond > 1e11 && ceilings.flopsPerSecond > 1e12);
  assert.equal(results.length, 1);
  for (const { coldMicroseconds, warmMicroseconds, fraction } of results) {
    assert.ok(coldMicroseconds > 0 && warmMicroseconds > 0 && fraction > 0 && fraction < 1.1);
  }
});

test("bench layer: every shape is right", async () => {
  const { results, failures } = await lastLine("bench", "layer", "--rounds", "3", "--json");
  assert.deepEqual(failures, []);
  assert.equal(results.length, 15);
});

test("bench model: the shipped model, and random weights of a shape", async () => {
  const shipped = await lastLine("bench", "model", ...onCuda, "--steps", "4", "--prefill", "64", "--json");
  const made = await lastLine(
    "bench",
    "model",
    ...onCuda,
    "--shape",
    "tiny",
    "--cells",
    "2x100",
    "--prefill",
    "64",
  );
  for (const { ceilings, decode } of [shipped, made]) {
    assert.ok(ceilings.bytesPerSecond > 1e11);
    for (const { milliseconds, fractionOfRead } of decode) assert.ok(milliseconds > 0 && fractionOfRead > 0);
  }
});

test("bench compare: every row of a small shape", async () => {
  const flags = ["--preset", "tiny", "--contexts", "64,128", "--batches", "1", "--json"];
  const { rows } = await lastLine("bench", "compare", ...onCuda, ...flags);
  assert.equal(rows.length, 20);
  for (const { outcome } of rows) assert.equal(outcome.status, "measured", outcome.reason);
});

test("accuracy: attention and the shipped model, every format", async () => {
  const { study, model } = await lastLine("accuracy", ...onCuda, "--lengths", "1024", "--json");
  assert.deepEqual([study.skipped, model.skipped], [[], []]);
  assert.equal(study.attention.length, 16);
  const worst = { f32: 1e-4, f16: 5e-3, bf16: 3e-2, fp8: 0.2 };
  for (const { dtype, out } of study.attention) assert.ok(out <= worst[dtype], `${dtype}: ${out}`);
  assert.ok(model.effects.every(({ agreement }) => agreement > 0.95));
});
