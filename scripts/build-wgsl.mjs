// Brings every src/**/*.wgsl into JavaScript: beside x.wgsl it writes x.wgsl.ts, which exports the text without comments and
// imports what `#include "…"` lines name. A TypeScript module works the same from src, from dist and in every bundler.
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join, posix, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");

function files(extension) {
  return readdirSync(join(root, "src"), { recursive: true })
    .map((name) => posix.join("src", name.split(sep).join("/")))
    .filter((file) => file.endsWith(extension))
    .sort();
}

function convert(file) {
  const includes = [];
  const lines = readFileSync(join(root, file), "utf8")
    .split("\n")
    .map((line) => line.replace(/\/\/.*$/, "").trim())
    .filter((line) => {
      const included = line.match(/^#include "(.+)"$/)?.[1];
      if (included !== undefined) includes.push(included);
      return line !== "" && included === undefined;
    });
  const interfaceFile = posix.relative(posix.dirname(file), "src/device/device.ts");
  return [
    `// Made from ${basename(file)} by scripts/build-wgsl.mjs.`,
    `import type { WgslSource } from "${interfaceFile}";`,
    ...includes.map(
      (path, i) => `import include${i} from "${path.startsWith(".") ? path : `./${path}`}.ts";`,
    ),
    "",
    "const source: WgslSource = {",
    `  name: ${JSON.stringify(relative("src/kernels", file).split(sep).join("/"))},`,
    `  includes: [${includes.map((_, i) => `include${i}`).join(", ")}],`,
    `  text: ${JSON.stringify(lines.join("\n"))},`,
    "};",
    "export default source;",
    "",
  ].join("\n");
}

/** Writes what is missing or has changed, removes what has no source any more; the number of files written. */
export function buildWgsl() {
  let written = 0;
  const sources = files(".wgsl");
  for (const file of sources) {
    const target = join(root, `${file}.ts`);
    const text = convert(file);
    if (existsSync(target) && readFileSync(target, "utf8") === text) continue;
    writeFileSync(target, text);
    written++;
  }
  for (const file of files(".wgsl.ts")) {
    if (!sources.includes(file.slice(0, -3))) rmSync(join(root, file));
  }
  return written;
}
