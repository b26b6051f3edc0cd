// The shipped model's speed in headless Chromium beside Node's, in turns: greedy tokens after one prompt, with all threads and
// with one. Usage, after `npm run web:build`: node benchmarks/browser/speed.mjs [rounds] [device, such as webgpu]
// The last line is one JSON object.
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { preview } from "vite";
import { Engine, generateText, openDevice, openLanguageModel, openTokenizer } from "../../dist/index.js";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const rounds = Number(process.argv[2] ?? 5);
const devices = process.argv[3] === undefined ? ["cpu", "cpu&threads=1", "cpu&threads=2"] : [process.argv[3]];
const tokens = 256;
const prompt = "ROMEO:\nO, she doth teach the torches to burn bright!\n\nJULIET:\n";
const folder = join(root, "models", "shakespeare-mla");

async function openNode(threads) {
  const device = await openDevice({ kind: "cpu", ...(threads === undefined ? {} : { threads }) });
  const model = await openLanguageModel(folder, { device });
  const tokenizer = await openTokenizer(folder);
  const engine = new Engine({ runner: model.runner, tokenizer, eosTokenIds: [] });
  const promptIds = tokenizer.encode(prompt);
  return async () => {
    const stream = generateText(engine, { promptIds, maxTokens: tokens, temperature: 0 });
    for (;;) {
      const { done, value } = await stream.next();
      if (done) return [value.timing.decodeTokensPerSecond, value.timing.firstTokenMs];
    }
  };
}

async function openPage(context, address, device) {
  const page = await context.newPage();
  await page.goto(`${address}?device=${device}`);
  await page.waitForFunction(() => document.body.dataset.phase === "ready");
  await page.locator("#prompt").fill(prompt);
  await page.evaluate((most) => {
    document.getElementById("temperature").value = "0";
    document.getElementById("max-tokens").value = String(most);
  }, tokens);
  return async () => {
    await page.bringToFront();
    await page.locator("#generate").click();
    await page.waitForFunction(() => document.body.dataset.phase === "generating");
    await page.waitForFunction(() => document.body.dataset.phase === "ready", undefined, {
      timeout: 300_000,
    });
    await page.evaluate(
      () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))),
    );
    return page.evaluate(() =>
      ["speed", "first-token"].map((id) => Number(document.getElementById(id).textContent)),
    );
  };
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const server = await preview({ configFile: join(root, "web", "vite.config.ts"), logLevel: "warn" });
const profile = mkdtempSync(join(tmpdir(), "flashmla-speed-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.FLASHMLA_CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--no-first-run", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"],
});
const address = server.resolvedUrls.local[0];
const runs = { "node cpu": await openNode(), "node cpu, 1 thread": await openNode(1) };
for (const device of devices) runs[`chromium ${device}`] = await openPage(context, address, device);
const measured = Object.fromEntries(Object.keys(runs).map((name) => [name, []]));
for (let round = 0; round <= rounds; round++) {
  for (const [name, run] of Object.entries(runs)) {
    const result = await run();
    if (round > 0) measured[name].push(result);
  }
}
const results = Object.entries(measured).map(([name, values]) => ({
  ...{ name, tokensPerSecond: median(values.map(([speed]) => speed)) },
  firstTokenMs: Math.round(median(values.map(([, first]) => first)) * 10) / 10,
}));
for (const { name, tokensPerSecond, firstTokenMs } of results) {
  console.log(
    `${name.padEnd(24)} ${tokensPerSecond.toFixed(0).padStart(5)} tokens/s  first token ${firstTokenMs} ms`,
  );
}
console.log(
  JSON.stringify({ processor: cpus()[0].model, processors: cpus().length, tokens, rounds, results }),
);
await context.close();
rmSync(profile, { recursive: true, force: true });
process.exit(0);
