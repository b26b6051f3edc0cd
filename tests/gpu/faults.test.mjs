// Faults on a GPU, each in a process of its own: what stopped is said, the process can put the device away and end.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { describe, it } from "node:test";

const root = new URL("../../", import.meta.url).href;

/** Runs a script with an open device; gives what it printed and how it ended. */
function run(body) {
  const script = `
    const { openDevice } = await import("${root}dist/device/index.js");
    const device = await openDevice({ kind: "cuda" });
    ${body}
    await device.close();
    console.log("closed");`;
  return new Promise((resolve) => {
    const options = { timeout: 60_000 };
    execFile(process.execPath, ["--input-type=module", "-e", script], options, (error, stdout, stderr) => {
      resolve({ code: error?.code ?? 0, stdout, stderr });
    });
  });
}

describe("faults", () => {
  it("a kernel that reads out of bounds ends the work with a sentence; the device still closes", async () => {
    const { code, stdout, stderr } = await run(`
      const tiny = device.allocate(1024, "tiny");
      const rows = device.allocate(4, "rows");
      device.write(rows, new Int32Array([1 << 30]));
      const source = { name: "wild", buffers: ["x", "weight", "out", "rowCount"],
        scalars: [["width", "i32"], ["epsilon", "f32"]],
        cuda: { module: "rms-norm.fatbin", function: "rmsNorm_f32", blockSize: 256 } };
      const program = device.record((launch) => launch(source, 4096, [tiny, tiny, tiny, rows], [1 << 28, 1]));
      program.run();
      try { await program.idle(); } catch (error) { console.log(error.name, error.message); }
      try { device.allocate(8, "more"); } catch (error) { console.log(error.name, error.message); }`);
    assert.equal(code, 0, stderr);
    const [first, second, last] = stdout.trim().split("\n");
    assert.match(first, /^UserError The GPU stopped in .*; what was on it is lost, and this process/);
    assert.equal(second, first);
    assert.equal(last, "closed");
  });

  it("memory that is not there: how much, for what, and what is left", async () => {
    const { code, stdout } = await run(`
      try { device.allocate(2 ** 42, "weights of a giant"); } catch (error) { console.log(error.message); }
      device.allocate(2 ** 20, "a megabyte").free();`);
    assert.equal(code, 0);
    assert.match(
      stdout,
      /no room for weights of a giant: it takes 4194304\.0 MiB and at most [\d.]+ MiB are left of/,
    );
  });
});
