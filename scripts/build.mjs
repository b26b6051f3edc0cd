// Builds what the package ships: wasm/*.wasm from every src/**/*.as.ts, cubin/ from every src/**/*.cu where nvcc is, a module
// beside every src/**/*.wgsl, then dist/ from the TypeScript sources.
// A part whose inputs have not changed since its last build is skipped; --for-here leaves out what this machine cannot run.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { deflateRawSync } from "node:zlib";
import { buildCuda, cubinOf, findNvcc } from "./build-cuda.mjs";
import { buildWgsl } from "./build-wgsl.mjs";
import { packWgsl } from "./pack-wgsl.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const require = createRequire(import.meta.url);
const quiet = process.argv.includes("--quiet");
const forHere = process.argv.includes("--for-here");
const only = process.argv.find((argument) => argument.startsWith("--only="))?.slice(7);

const say = (text) => quiet || console.log(text);

function sources(folder, wanted) {
  return readdirSync(join(root, folder), { recursive: true })
    .map((name) => join(folder, name).split(sep).join("/"))
    .filter(wanted)
    .sort();
}

function stampOf(files) {
  const hash = createHash("sha256");
  for (const file of files) hash.update(file).update(readFileSync(join(root, file)));
  return hash.digest("hex");
}

function cached(name, inputs, outputs, build) {
  const stampFile = join(root, "build", `${name}.stamp`);
  const stamp = stampOf(inputs);
  const fresh = existsSync(stampFile) && readFileSync(stampFile, "utf8") === stamp;
  if (fresh && outputs.every((file) => existsSync(join(root, file)))) return say(`${name}: up to date`);
  const start = performance.now();
  build();
  mkdirSync(join(root, "build"), { recursive: true });
  writeFileSync(stampFile, stamp);
  say(`${name}: built in ${((performance.now() - start) / 1000).toFixed(1)} s`);
}

const variants = {
  "kernels-simd.wasm": ["simd", "threads"],
  "kernels-relaxed.wasm": ["simd", "threads", "relaxed-simd"],
};

function buildWasm(files) {
  const entry = join(root, "build", "kernels.entry.ts");
  mkdirSync(dirname(entry), { recursive: true });
  mkdirSync(join(root, "wasm"), { recursive: true });
  const lines = files.map(
    (file) => `export * from "${relative("build", file).split(sep).join("/").replace(/\.ts$/, "")}";`,
  );
  writeFileSync(entry, `${lines.join("\n")}\n`);
  const asc = join(dirname(require.resolve("assemblyscript/package.json")), "bin", "asc.js");
  for (const [name, features] of Object.entries(variants)) {
    const flags = [
      "-O3",
      "--noAssert",
      "--runtime",
      "stub",
      "--importMemory",
      "--sharedMemory",
      "--exportTable",
    ];
    flags.push("--initialMemory", "1", "--maximumMemory", "65536", "--use", "abort=", "--disableWarning");
    for (const feature of features) flags.push("--enable", feature);
    run([asc, "build/kernels.entry.ts", "-o", `wasm/${name}`, ...flags]);
    embed(name);
  }
}

/** The module that a browser bundle carries instead of the file: bundlers agree on JavaScript alone. */
function embed(name) {
  const deflated = deflateRawSync(readFileSync(join(root, "wasm", name)), { level: 9 });
  const text = `export default "${deflated.toString("base64")}";\n`;
  writeFileSync(join(root, "wasm", `${name}.js`), text);
}

function buildTypeScript() {
  rmSync(join(root, "dist"), { recursive: true, force: true });
  run([
    require.resolve("typescript/package.json").replace("package.json", "bin/tsc"),
    "-p",
    "tsconfig.build.json",
  ]);
  packWgsl(join(root, "dist"));
  for (const file of pages) copyFileSync(join(root, file), join(root, file.replace(/^src/, "dist")));
}

function run(parameters) {
  try {
    execFileSync(process.execPath, parameters, {
      cwd: root,
      stdio: ["ignore", quiet ? "pipe" : "inherit", "pipe"],
    });
  } catch (error) {
    process.stderr.write(`${error.stdout ?? ""}${error.stderr ?? error}\n`);
    process.exit(1);
  }
}

buildWgsl();
const kernels = sources("src", (file) => file.endsWith(".as.ts"));
const entries = kernels.filter((file) => !file.includes("/common/"));
const typescript = sources(
  "src",
  (file) => file.endsWith(".ts") && !file.endsWith(".as.ts") && !file.endsWith(".test.ts"),
);

const pages = sources("src", (file) => file.endsWith(".html"));

if (only !== "ts" && only !== "cuda") {
  const inputs = [...kernels, "scripts/build.mjs", "package-lock.json"];
  cached(
    "wasm",
    inputs,
    Object.keys(variants).flatMap((name) => [`wasm/${name}`, `wasm/${name}.js`]),
    () => buildWasm(entries),
  );
}
if (only === undefined || only === "cuda") {
  const cuda = sources("src", (file) => file.endsWith(".cu"));
  const headers = sources("src", (file) => file.endsWith(".cuh"));
  const nvcc = findNvcc();
  const hasDriver = ["/dev/nvidiactl", "/dev/dxg"].some((device) => existsSync(device));
  if (forHere && process.platform === "linux" && !hasDriver) {
    say("cuda: skipped, there is no NVIDIA driver here");
  } else if (nvcc === null) {
    say("cuda: skipped, there is no nvcc on the PATH; the package is built without CUDA kernels");
  } else {
    cached("cuda", [...cuda, ...headers, "scripts/build-cuda.mjs"], cuda.map(cubinOf), () => {
      try {
        buildCuda(root, cuda, say);
      } catch (error) {
        process.stderr.write(`${error.stdout ?? ""}${error.message}\n`);
        process.exit(1);
      }
    });
  }
}
if (only !== "wasm" && only !== "cuda") {
  cached(
    "dist",
    [
      ...typescript,
      ...pages,
      "scripts/pack-wgsl.mjs",
      "tsconfig.json",
      "tsconfig.build.json",
      "package-lock.json",
    ],
    ["dist/index.js"],
    buildTypeScript,
  );
}
