import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findNvcc } from "../../scripts/build-cuda.mjs";
import { packedFiles, problemsOf, wantedCubins } from "../../scripts/check-tarball.mjs";

const root = join(import.meta.dirname, "..", "..");

/** Runs the npm that belongs to this Node, without a shell. */
function npm(args: string[], cwd: string): string {
  return execFileSync("npm", args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

describe("what the tarball holds", () => {
  // Without nvcc the build says that it skips the CUDA kernels, and publishing such a package is refused.
  it("kernels of every device, docs, the model, and nothing of the repository besides", () => {
    const files = packedFiles();
    expect(problemsOf(files, { withoutCuda: findNvcc() === null })).toEqual([]);
    const bare = files.filter((file) => !file.startsWith("cubin/"));
    expect(problemsOf(bare)).toEqual(wantedCubins().map((file) => `the package lacks ${file}`));
    expect(problemsOf([...files, "src/index.ts"], { withoutCuda: true })).toEqual([
      "the package should not hold src/index.ts",
    ]);
  });
});

describe("the packed tarball in an empty project", () => {
  let project: string;

  beforeAll(() => {
    project = mkdtempSync(join(tmpdir(), "flashmla-tarball-"));
    const packed = npm(["pack", "--ignore-scripts", "--silent", "--pack-destination", project], root).trim();
    writeFileSync(join(project, "package.json"), '{ "name": "empty", "private": true, "type": "module" }');
    npm(
      ["install", "--silent", "--no-audit", "--no-fund", join(project, packed.split("\n").at(-1) ?? "")],
      project,
    );
  }, 240_000);

  afterAll(() => rmSync(project, { recursive: true, force: true }));

  it("every subpath of its exports imports", () => {
    const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { exports: object };
    const names = Object.keys(manifest.exports).filter((name) => !name.endsWith(".json"));
    const lines = names.map(
      (name) => `console.log(Object.keys(await import("flashmla${name.slice(1)}")).length > 0);`,
    );
    writeFileSync(join(project, "imports.js"), lines.join("\n"));
    const out = execFileSync(process.execPath, ["imports.js"], { cwd: project, encoding: "utf8" });
    expect(out.trim().split("\n")).toEqual(names.map(() => "true"));
  });

  it("runs a kernel on worker threads from its own .wasm", () => {
    writeFileSync(
      join(project, "kernel.js"),
      `import { openDevice } from "flashmla";
import { rmsNorm } from "flashmla/kernels";
const device = await openDevice({ threads: 2 });
const buffer = (values) => {
  const made = device.allocate(values.byteLength, "data");
  device.write(made, values);
  return made;
};
const x = buffer(new Float32Array([3, 4, 0, 0]));
const weight = buffer(new Float32Array([1, 1, 1, 1]));
const rowCount = buffer(new Int32Array([1]));
device.record((launch) => rmsNorm(launch, { x, weight, out: x, rowCount, maxRows: 1, width: 4, epsilon: 0 })).run();
console.log(new Float32Array(await device.read(x, 0, 16)).join(" "));
await device.close();`,
    );
    const out = execFileSync(process.execPath, ["kernel.js"], { cwd: project, encoding: "utf8" });
    const values = out.trim().split(" ").map(Number);
    expect(values[0]).toBeCloseTo(1.2, 6);
    expect(values[1]).toBeCloseTo(1.6, 6);
  });

  it("its command runs", () => {
    const out = execFileSync("npx", ["--no-install", "flashmla", "devices", "--json"], {
      cwd: project,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
    expect(JSON.parse(out)).toMatchObject({ devices: [{ kind: "cpu", available: true }, {}, {}] });
  });

  it("its command writes text with the model that it brings", () => {
    const parameters = ["--no-install", "flashmla", "generate", "-n", "8", "--greedy", "--json"];
    const stdio = ["ignore", "pipe", "ignore"] as ["ignore", "pipe", "ignore"];
    const out = execFileSync("npx", parameters, { cwd: project, encoding: "utf8", stdio });
    const report = JSON.parse(out) as { text: string; outputTokens: number };
    expect(report.outputTokens).toBe(8);
    expect(report.text.length).toBeGreaterThan(8);
  });
});
