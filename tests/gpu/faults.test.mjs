// Faults on a GPU, each in a process of its own: what stopped is said, the process can put the device away and end.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { describe, it } from "node:test";

const root = new URL("../../", import.meta.url).href;

/** Source of `wild(device)`, a launch that reads far out of bounds. */
const wild = `
  function wild(device) {
    const tiny = device.allocate(1024, "tiny");
    const rows = device.allocate(4, "rows");
    device.write(rows, new Int32Array([1 << 30]));
    const source = { name: "wild", buffers: ["x", "weight", "out", "rowCount"],
      scalars: [["width", "i32"], ["epsilon", "f32"]],
      cuda: { module: "rms-norm.fatbin", function: "rmsNorm_f32", blockSize: 256 } };
    return (launch) => launch(source, 4096, [tiny, tiny, tiny, rows], [1 << 28, 1]);
  }`;

/** Runs a script with an open device; gives what it printed and how it ended. */
function run(body) {
  const script = `
    const { openDevice } = await import("${root}dist/device/index.js");
    const device = await openDevice({ kind: "cuda" });
    ${body}
    await device.close();
    console.log("closed");`;
  return execute(["--input-type=module", "-e", script]);
}

/** Runs Node with these arguments; gives what it printed and how it ended. */
function execute(words) {
  return new Promise((resolve) => {
    execFile(process.execPath, words, { timeout: 60_000 }, (error, stdout, stderr) => {
      resolve({ code: error?.code ?? 0, stdout, stderr });
    });
  });
}

describe("faults", () => {
  it("a kernel that reads out of bounds ends the work with a sentence; the device still closes", async () => {
    const { code, stdout, stderr } = await run(`
      ${wild}
      const program = device.record(wild(device));
      program.run();
      try { await program.idle(); } catch (error) { console.log(error.name, error.message); }
      try { device.allocate(8, "more"); } catch (error) { console.log(error.name, error.message); }
      await device.close();
      try { await openDevice({ kind: "cuda" }); } catch (error) { console.log(error.name, error.message); }`);
    assert.equal(code, 0, stderr);
    const [first, second, third, last] = stdout.trim().split("\n");
    assert.match(first, /^UserError The GPU stopped in .*; what was on it is lost, and this process/);
    assert.equal(second, first);
    // The driver serves a process no more after that: opening again says so, and ends.
    assert.match(
      third,
      /^UserError The GPU stopped in cu\w+: .*; what was on it is lost, and this process .* start it again\.$/,
    );
    assert.equal(last, "closed");
  });

  it("a fault ends the command line with that sentence and exit code 1", async () => {
    const hook = `data:text/javascript,${encodeURIComponent(`
      import { CudaDevice } from "${root}dist/device/cuda/cuda-device.js";
      ${wild}
      const { record } = CudaDevice.prototype;
      CudaDevice.prototype.record = function (step) {
        return record.call(this, (launch) => { wild(this)(launch); step(launch); });
      };`)}`;
    const model = new URL("models/shakespeare-mla", root).pathname;
    const words = ["generate", model, "-p", "To be", "--max-tokens", "4", "--device", "cuda"];
    const { code, stdout, stderr } = await execute([
      ...["--import", hook, new URL("dist/cli/main.js", root).pathname],
      ...words,
    ]);
    assert.equal(code, 1, stderr);
    // The prompt, which is written before the first token comes.
    assert.equal(stdout.trim(), "To be");
    const lines = stderr
      .trim()
      .split("\n")
      .filter((line) => line.includes("GPU stopped"));
    assert.equal(lines.length, 1, stderr);
    assert.doesNotMatch(stderr, /\n\s+at /);
  });

  it("memory that is not there: how much, for what, and what is left", async () => {
    const { code, stdout } = await run(`
      try { device.allocate(2 ** 42, "weights of a giant"); } catch (error) { console.log(error.message); }
      device.allocate(2 ** 20, "a megabyte").free();`);
    assert.equal(code, 0);
    assert.match(
      stdout,
      /no room for weights of a giant: it takes 4194304 MiB and at most [\d.]+ MiB are left of/,
    );
  });
});
