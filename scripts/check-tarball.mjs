// What the published package must hold, kernels of every device included, and what it must not. Run before publishing; prints what is
// missing and exits with 1. The package has to be built, with nvcc too.
import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { cubinOf } from "./build-cuda.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");

/** Paths of the files that `npm pack` takes. */
export function packedFiles() {
  const json = execFileSync("npm", ["pack", "--dry-run", "--ignore-scripts", "--json"], {
    cwd: root,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  return JSON.parse(json)[0].files.map(({ path }) => path);
}

/** One compiled kernel for each CUDA source. */
export function wantedCubins() {
  const sources = readdirSync(join(root, "src"), { recursive: true }).map(String);
  return sources.filter((file) => file.endsWith(".cu")).map((file) => cubinOf(file));
}

const wanted = [
  ...["package.json", "README.md", "LICENSE", "CHANGELOG.md", "docs/architecture.md", "data/gpus.json"],
  ...["dist/index.js", "dist/index.d.ts", "dist/cli/main.js", "dist/server/chat-page.html"],
  ...["wasm/kernels-simd.wasm", "wasm/kernels-relaxed.wasm", "wasm/kernels-relaxed.wasm.js"],
  ...["config.json", "tokenizer.json", "model.safetensors"].map((file) => `models/shakespeare-mla/${file}`),
];
const unwanted = /\.test\.|^(src|tests|web|benchmarks|scripts|tools|examples|build)\/|\.new$|\.cu$/;

/** What is wrong with a package of `files`, in sentences; its compiled CUDA kernels are asked for unless `withoutCuda`. */
export function problemsOf(files, { withoutCuda = false } = {}) {
  const names = new Set(files);
  const all = withoutCuda ? wanted : [...wanted, ...wantedCubins()];
  return [
    ...all.filter((file) => !names.has(file)).map((file) => `the package lacks ${file}`),
    ...files.filter((file) => unwanted.test(file)).map((file) => `the package should not hold ${file}`),
  ];
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const files = packedFiles();
  const problems = problemsOf(files);
  for (const problem of problems) console.error(problem);
  console.log(`${files.length} files, ${problems.length} problems`);
  process.exit(problems.length > 0 ? 1 : 0);
}
