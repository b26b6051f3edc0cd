// What `import … from "flashmla"` weighs in a browser: bundles the package for a consumer with esbuild and Vite, minified, with
// no shims, and adds up every chunk, the lazily loaded ones (devices, kernels) included. Prints a table; exits with 1 over the
// limit. The package has to be built.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import * as esbuild from "esbuild";
import { build } from "vite";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");

/** Bytes that everything `flashmla` exports may take, kernels included. */
export const limitBytes = 400 * 1024;

/** The parts of the package that make sense in a browser. */
export const browserEntries = [
  "flashmla",
  ...["base", "files", "device", "formats", "text", "kernels", "cache", "models", "engine", "economics"].map(
    (name) => `flashmla/${name}`,
  ),
];

const forbidden = /__vite-browser-external|Dynamic require of|require\("node:|from"node:|import\("node:/;

/** A consumer's folder whose one source file exports everything of `entry`. */
function makeConsumer(entry) {
  const folder = mkdtempSync(join(tmpdir(), "flashmla-consumer-"));
  mkdirSync(join(folder, "node_modules"));
  symlinkSync(root, join(folder, "node_modules", "flashmla"));
  writeFileSync(join(folder, "package.json"), '{"type":"module"}');
  writeFileSync(join(folder, "main.js"), `export * from "${entry}";\n`);
  return folder;
}

async function withEsbuild(folder) {
  const { outputFiles } = await esbuild.build({
    entryPoints: [join(folder, "main.js")],
    ...{ bundle: true, splitting: true, minify: true, write: false, logLevel: "silent" },
    ...{ platform: "browser", format: "esm", target: "es2023", outdir: join(folder, "out") },
  });
  return outputFiles.map(({ path, text }) => ({ name: path.slice(folder.length + 5), text }));
}

async function withVite(folder) {
  const result = await build({
    ...{ root: folder, configFile: false, logLevel: "silent" },
    build: {
      ...{ write: false, minify: true, target: "es2023", modulePreload: false },
      rollupOptions: { input: join(folder, "main.js"), preserveEntrySignatures: "strict" },
    },
  });
  return result.output.map(({ fileName, code, source }) => ({
    name: fileName,
    text: code ?? String(source),
  }));
}

const bundlers = { esbuild: withEsbuild, vite: withVite };

/** Bundles `entry` with `bundler`: its chunks' names and bytes. Throws when it needs Node or does not bundle. */
export async function bundleForBrowser(entry, bundler) {
  const folder = makeConsumer(entry);
  try {
    const chunks = await bundlers[bundler](folder);
    for (const { name, text } of chunks) {
      const needed = text.match(forbidden)?.[0];
      if (needed) throw new Error(`${entry} bundled with ${bundler}: ${name} holds ${needed}`);
    }
    const sizes = chunks.map(({ name, text }) => ({ name, bytes: Buffer.byteLength(text) }));
    return { entry, bundler, chunks: sizes, bytes: sizes.reduce((sum, { bytes }) => sum + bytes, 0) };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function main() {
  const kib = (bytes) => `${(bytes / 1024).toFixed(1).padStart(6)} KiB`;
  let worst = 0;
  for (const bundler of Object.keys(bundlers)) {
    for (const entry of browserEntries) {
      const { bytes } = await bundleForBrowser(entry, bundler);
      console.log(`${kib(bytes)}  ${entry.padEnd(18)} ${bundler}`);
      worst = Math.max(worst, bytes);
    }
  }
  console.log(
    `${kib(worst)}  the largest; limit ${kib(limitBytes).trim()}, minified, every chunk, kernels included`,
  );
  process.exit(worst <= limitBytes ? 0 : 1);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await main();
