// Ctrl-C and sudden death on a GPU, while weights load and while text is written: exit codes, one sentence, and no memory that stays.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import {
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { openDevice } from "../../dist/device/index.js";

const root = new URL("../../", import.meta.url).pathname;
const shipped = join(root, "models/shakespeare-mla");
const kind = process.env.FLASHMLA_TEST_DEVICE ?? "cuda";
/** Width of MLPs of zeros that take long enough to load: 6 GiB in 4 layers; 1.5 GiB on a CPU. */
const WIDTH = kind === "cuda" ? 2 ** 20 : 2 ** 18;
const bytes = 4 * 3 * 256 * 2 * WIDTH;

/** The shipped model with wider MLPs, its weights a sparse file of zeros. */
function makeLargeModel() {
  const folder = mkdtempSync(join(tmpdir(), "flashmla-large-"));
  cpSync(shipped, folder, { recursive: true });
  const config = JSON.parse(readFileSync(join(shipped, "config.json"), "utf8"));
  writeFileSync(join(folder, "config.json"), JSON.stringify({ ...config, intermediate_size: WIDTH }));
  const file = readFileSync(join(shipped, "model.safetensors"));
  const header = JSON.parse(file.toString("utf8", 8, 8 + Number(file.readBigUInt64LE(0))));
  let end = 0;
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    if (/mlp\.(gate|up)_proj/.test(name)) entry.shape[0] = WIDTH;
    if (name.includes("mlp.down_proj")) entry.shape[1] = WIDTH;
    const size = entry.shape.reduce((product, length) => product * length, 2);
    header[name] = { dtype: "BF16", shape: entry.shape, data_offsets: [end, end + size] };
    end += size;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const weights = join(folder, "model.safetensors");
  writeFileSync(weights, Buffer.concat([length, json]));
  truncateSync(weights, 8 + json.length + end);
  return folder;
}

/** Starts `flashmla generate`; resolves with how it ended. `onOutput` sees standard output so far. */
function generate(model, { onStart, onOutput, tokens = 900 }) {
  const words = ["generate", model, "--device", kind, "-p", "To be", "-n", String(tokens), "--ignore-eos"];
  const child = spawn(process.execPath, [join(root, "dist/cli/main.js"), ...words]);
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (text) => {
    stdout += text;
    onOutput?.(child, stdout);
  });
  child.stderr.on("data", (text) => {
    stderr += text;
  });
  onStart?.(child);
  return new Promise((resolve) => {
    child.on("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}

describe("Ctrl-C and kills", () => {
  let device;
  let folder;
  before(async () => {
    device = await openDevice({ kind });
    folder = makeLargeModel();
  });
  after(async () => {
    rmSync(folder, { recursive: true });
    await device.close();
  });

  /** What others have of the GPU's memory, since this test began. */
  const taken = () => device.memory.reservedBytes ?? 0;

  /** Whether a process reads the large model's weights (on Linux, which tells). */
  function reads({ pid }) {
    try {
      const files = readdirSync(`/proc/${pid}/fd`).map((name) => readlinkSync(`/proc/${pid}/fd/${name}`));
      return files.includes(join(folder, "model.safetensors"));
    } catch {
      return false;
    }
  }

  /** Resolves when `isTrue` is, or rejects after `seconds`. */
  async function until(isTrue, seconds, what) {
    for (const end = Date.now() + 1000 * seconds; !isTrue(); ) {
      assert.ok(Date.now() < end, `${what}: ${taken()} bytes taken`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  for (const signal of ["SIGINT", "SIGKILL"]) {
    it(`${signal} while weights load: the memory comes back`, async () => {
      let running;
      const onStart = (child) => {
        running = child;
      };
      const ended = generate(folder, { onStart });
      await until(() => reads(running), 20, "it loads nothing");
      await new Promise((resolve) => setTimeout(resolve, 300));
      const during = taken();
      running.kill(signal);
      const result = await ended;
      assert.equal(result.stdout, "", "it was over before");
      if (signal === "SIGINT") {
        assert.equal(result.code, 130, result.stderr);
        assert.match(result.stderr, /^Stopped by Ctrl-C\.\n$/);
      } else {
        assert.deepEqual([result.code, result.signal, result.stderr], [null, signal, ""]);
      }
      // Half of it: the tests beside this one take and give back some of their own.
      if (kind === "cuda") await until(() => taken() < during - 0.5 * bytes, 20, "the memory stays taken");
    });
  }

  it("SIGINT while text is written: what there is, and exit code 130", async () => {
    const onOutput = (child, text) => text.length > 20 && child.kill("SIGINT");
    const { code, stdout, stderr } = await generate(shipped, { onOutput });
    assert.equal(code, 130, stderr);
    assert.ok(stdout.startsWith("To be") && stdout.length > 20);
    assert.doesNotMatch(stderr, /error|\n\s+at /);
  });
});
