// The examples of README.md, run as they stand there: the library in Node, and the browser's in a Web Worker that esbuild or Vite bundled.
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import * as esbuild from "esbuild";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { hasChromium, visit } from "./browser.ts";
import { serveSite } from "./site.ts";

const root = join(import.meta.dirname, "..", "..");
const shipped = join(root, "models", "shakespeare-mla");

/** Blocks of code in the README, in their order. */
function blocksOf(language: string): string[] {
  const text = readFileSync(join(root, "README.md"), "utf8");
  return [...text.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)]
    .filter(([, name]) => name === language)
    .map(([, , code]) => code ?? "");
}

const [library = "", browser = ""] = blocksOf("ts");
let project: string;

beforeAll(() => {
  project = mkdtempSync(join(tmpdir(), "flashmla-readme-"));
  mkdirSync(join(project, "node_modules"));
  symlinkSync(root, join(project, "node_modules", "flashmla"));
  symlinkSync(shipped, join(project, "model"));
  writeFileSync(join(project, "package.json"), '{"type":"module"}');
});
afterAll(() => rmSync(project, { recursive: true, force: true }));

it("the library's example writes text", () => {
  writeFileSync(join(project, "example.js"), library);
  const env = { ...process.env, FLASHMLA_DEVICE: "cpu" };
  const out = execFileSync(process.execPath, ["example.js"], { cwd: project, encoding: "utf8", env });
  expect(library).toContain("generateText(engine");
  expect(out.trim().length).toBeGreaterThan(0);
});

/** Writes the worker of the browser's example, with the import that a reader would add, and a page's script that starts it. */
async function writeSources(): Promise<void> {
  const exported = Object.keys(await import("../../src/index.ts"));
  const used = exported.filter((name) => new RegExp(`\\b${name}\\b`).test(browser));
  writeFileSync(join(project, "worker.js"), `import { ${used.join(", ")} } from "flashmla";\n${browser}`);
  writeFileSync(
    join(project, "main.js"),
    `const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
worker.onmessage = ({ data }) => document.body.append(data);
worker.onerror = ({ message }) => document.body.append("failed: " + message);
document.body.dataset.isolated = String(crossOriginIsolated);`,
  );
}

async function withEsbuild(folder: string): Promise<void> {
  await esbuild.build({
    entryPoints: ["main.js", "worker.js"].map((file) => join(project, file)),
    ...{ bundle: true, splitting: true, minify: true, platform: "browser", format: "esm" },
    outdir: folder,
  });
  writeFileSync(join(folder, "index.html"), '<body><script type="module" src="main.js"></script></body>');
}

async function withVite(folder: string): Promise<void> {
  writeFileSync(join(project, "index.html"), '<body><script type="module" src="./main.js"></script></body>');
  const config = 'export default { base: "./", worker: { format: "es" } };';
  writeFileSync(join(project, "vite.config.js"), config);
  const vite = join(dirname(createRequire(import.meta.url).resolve("vite/package.json")), "bin", "vite.js");
  const flags = ["build", project, "--outDir", folder, "--emptyOutDir", "--logLevel", "error"];
  execFileSync(process.execPath, [vite, ...flags], { env: { ...process.env, NODE_ENV: "production" } });
}

describe.skipIf(!hasChromium())("the browser's example", () => {
  it("is five statements in a worker", () => {
    expect(browser).toMatch(/keptUrlFolder\("\/models\/shakespeare-mla\/"\)/);
    expect(browser.trim().split("\n")).toHaveLength(5);
  });

  it.each([
    ["esbuild", true, withEsbuild],
    ["vite", true, withVite],
    ["vite", false, withVite],
  ] as const)("bundled with %s, writes text; isolated: %s", async (_, isolated, bundle) => {
    await writeSources();
    const folder = join(project, "site");
    await bundle(folder);
    cpSync(shipped, join(folder, "models", "shakespeare-mla"), { recursive: true });
    const site = await serveSite(folder, { isolated });
    const visitor = await visit(site.address);
    try {
      await visitor.page.goto(site.address);
      // Its draws are random: a scene may be short.
      await visitor.page.waitForFunction(() => (document.body.textContent ?? "").trim().length > 0);
      expect(await visitor.page.locator("body").textContent()).not.toContain("failed");
      expect(await visitor.page.locator("body").getAttribute("data-isolated")).toBe(String(isolated));
      expect(visitor.strays).toEqual([]);
    } finally {
      await visitor.close();
      await site.close();
      rmSync(folder, { recursive: true });
    }
  });
});
