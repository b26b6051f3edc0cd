// Checks the import rules of docs/architecture.md: downward only, no folder of the same layer, no cycles, nobody
// imports its own folder's index, interface files import types only, device APIs are named under device/ alone, and every
// *.browser.ts takes the place of a file.
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, posix, sep } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const layers = {
  base: 0,
  files: 0.5,
  device: 1,
  formats: 1,
  text: 1,
  report: 1,
  kernels: 2,
  cache: 3,
  models: 4,
  engine: 5,
  server: 6,
  bench: 6,
  economics: 6,
  accuracy: 6,
  verify: 6,
  "ai-sdk": 7,
  cli: 7,
};
const deviceApis = /\b(WebAssembly\.\w+|navigator\.gpu|GPUDevice|GPUBuffer|koffi)\b/;
const interfaces = new Set(["src/device/device.ts"]);
const problems = [];

const files = readdirSync(join(root, "src"), { recursive: true })
  .map((name) => `src/${name.split(sep).join("/")}`)
  .filter((file) => file.endsWith(".ts"));

const folderOf = (file) => (file.split("/").length > 2 ? file.split("/")[1] : "index");
const kernelOf = (file) =>
  file.startsWith("src/kernels/") && file.split("/").length > 3 ? file.split("/")[2] : null;

function importsOf(file) {
  const text = readFileSync(join(root, file), "utf8");
  const found = [];
  const pattern =
    /(?:^|\n)\s*(import|export)\s+(type\s+)?(?:[^;"']*?from\s+)?["'](\.{1,2}\/[^"']+)["']|import\(\s*["'](\.[^"']+)["']\s*\)/g;
  for (const match of text.matchAll(pattern)) {
    const target = match[3] ?? match[4];
    const path = posix.join(posix.dirname(file), target);
    found.push({ path: file.endsWith(".as.ts") ? `${path}.ts` : path, typeOnly: match[2] !== undefined });
  }
  return found;
}

function checkImport(file, { path, typeOnly }) {
  if (path.startsWith("wasm/") && file.startsWith("src/device/")) return undefined;
  if (!path.startsWith("src/"))
    return file.endsWith(".test.ts") ? undefined : `${file} imports ${path} outside src/`;
  const [from, to] = [folderOf(file), folderOf(path)];
  if (interfaces.has(file) && !typeOnly)
    return `${file} is an interface and imports more than types from ${path}`;
  if (path === posix.join(posix.dirname(file), "index.ts")) return `${file} imports its own folder's index`;
  if (from === "index" || file.endsWith(".test.ts")) return undefined;
  if (layers[from] === undefined) return `${file} lies in no known layer`;
  if (from !== to && !(layers[to] < layers[from])) return `${file} (${from}) must not import ${path} (${to})`;
  const [kernel, other] = [kernelOf(file), kernelOf(path)];
  if (from === "kernels" && kernel !== null && other !== kernel && to === "kernels" && other !== "common") {
    return `${file} must not import another kernel's folder: ${path}`;
  }
  return undefined;
}

function findCycles(graph) {
  const state = new Map();
  const visit = (file, trail) => {
    if (state.get(file) === "done") return;
    if (state.get(file) === "open") {
      problems.push(`import cycle: ${[...trail.slice(trail.indexOf(file)), file].join(" → ")}`);
      return;
    }
    state.set(file, "open");
    for (const next of graph.get(file) ?? []) visit(next, [...trail, file]);
    state.set(file, "done");
  };
  for (const file of graph.keys()) visit(file, []);
}

/** A name.browser.ts takes the place of its name.ts in bundles: package.json's "browser" lists exactly those pairs. */
function checkTwins() {
  const { browser } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const twins = files.filter((file) => file.endsWith(".browser.ts"));
  const built = (file) => `./${file.replace(/^src/, "dist").replace(/\.ts$/, ".js")}`;
  const expected = twins.map((twin) => [built(twin.replace(".browser.ts", ".ts")), built(twin)]);
  if (JSON.stringify(Object.entries(browser)) !== JSON.stringify(expected.sort())) {
    problems.push(
      `"browser" of package.json is not ${JSON.stringify(Object.fromEntries(expected), null, 2)}`,
    );
  }
  for (const twin of twins) {
    if (/["']node:/.test(readFileSync(join(root, twin), "utf8")))
      problems.push(`${twin} names a module of Node`);
  }
}

const graph = new Map();
for (const file of files) {
  const imports = importsOf(file);
  graph.set(
    file,
    imports.filter(({ typeOnly }) => !typeOnly).map(({ path }) => path),
  );
  for (const one of imports) {
    const problem = checkImport(file, one);
    if (problem) problems.push(problem);
  }
  const text = readFileSync(join(root, file), "utf8");
  const api = file.startsWith("src/device/") || file.endsWith(".test.ts") ? null : text.match(deviceApis);
  if (api) problems.push(`${file} names ${api[0]}; only src/device/ may`);
}
findCycles(graph);
checkTwins();

for (const problem of problems) console.error(problem);
console.log(`${files.length} files, ${problems.length} layer problems`);
process.exit(problems.length === 0 ? 0 : 1);
