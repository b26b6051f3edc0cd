import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { openDevice } from "../../src/device/open.ts";
import { Engine } from "../../src/engine/engine.ts";
import { generateText } from "../../src/engine/generate-text.ts";
import { openLanguageModel } from "../../src/engine/language-model.ts";
import { openTokenizer } from "../../src/text/open-tokenizer.ts";
import {
  artefacts,
  buildSite,
  generateGreedily,
  hasChromium,
  type Visitor,
  type VisitorOptions,
  visit,
  whenReady,
} from "./browser.ts";
import { type Site, type SiteOptions, serveSite } from "./site.ts";

const shipped = join(import.meta.dirname, "..", "..", "models", "shakespeare-mla");
const prompt = "JULIET:\nO Romeo, Romeo! wherefore art thou Romeo?\n";
const tokens = 48;
/** A processor that plays a GPU takes up to a second a token when the machine is busy. */
const slow = 300_000;

/** What Node's CPU device writes; its bits depend on no thread count. */
async function expectedText(): Promise<string> {
  const device = await openDevice({ kind: "cpu", threads: 1 });
  const model = await openLanguageModel(shipped, { device });
  const tokenizer = await openTokenizer(shipped);
  const engine = new Engine({ runner: model.runner, tokenizer, eosTokenIds: model.config.eosTokenIds });
  let text = "";
  const request = { promptIds: tokenizer.encode(prompt), maxTokens: tokens, temperature: 0 };
  for await (const piece of generateText(engine, request)) text += piece;
  await engine.close();
  await device.close();
  return text;
}

describe.skipIf(!hasChromium())("the playground in Chromium", () => {
  let folder: string;
  let expected: string;
  const open: { close(): Promise<void> }[] = [];
  beforeAll(async () => {
    [folder, expected] = await Promise.all([buildSite(), expectedText()]);
    expect(expected.length).toBeGreaterThan(40);
  });
  afterEach(async () => {
    for (const one of open.splice(0).reverse()) await one.close();
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  async function start(
    siteOptions: SiteOptions,
    visitorOptions: VisitorOptions = {},
    path = "",
  ): Promise<{ site: Site } & Visitor> {
    const site = await serveSite(folder, siteOptions);
    open.push(site);
    const visitor = await visit(site.address, visitorOptions);
    open.push(visitor);
    await visitor.page.goto(`${site.address}${path}`);
    return { site, ...visitor };
  }

  it.each([
    { isolated: true, query: "&threads=2", threads: /2 threads\./, more: "" },
    { isolated: true, query: "", threads: /\d+ threads?\./, more: "" },
    { isolated: false, query: "", threads: /1 thread\./, more: "cross-origin isolated" },
  ])("writes what Node writes, on the CPU , isolated $isolated, query: $query", async (one) => {
    const { isolated, query, threads, more } = one;
    const { page, strays } = await start({ isolated }, {}, `?device=cpu${query}`);
    await whenReady(page);
    expect(await page.evaluate(() => crossOriginIsolated)).toBe(isolated);
    const facts = (await page.locator("#device-facts").textContent()) ?? "";
    expect(facts).toMatch(/CPU: WebAssembly (relaxed )?SIMD/);
    expect(facts).toMatch(threads);
    expect(facts).toContain(more);
    expect(await page.locator("#model-facts").textContent()).not.toContain("not kept");
    expect(await generateGreedily(page, prompt, tokens)).toBe(expected);
    expect(Number(await page.locator("#speed").textContent())).toBeGreaterThan(0);
    expect(Number(await page.locator("#first-token").textContent())).toBeGreaterThan(0);
    expect(await page.locator("#pages").getAttribute("aria-label")).toMatch(
      /\d+ tokens; [12] of 16 pages in use/,
    );
    expect(await page.locator("#saved").textContent()).toMatch(/saved: 4\.0 times smaller/);
    expect(strays).toEqual([]);
  });

  it("says in a sentence what is missing without WebGPU, and runs on the CPU", async () => {
    const { page } = await start({ isolated: true });
    await whenReady(page);
    const status = (await page.locator("#status").textContent()) ?? "";
    expect(status).toMatch(/shakespeare-mla is ready after .* Without WebGPU \(.+\) it runs on the CPU\.$/);
    await page.goto(page.url().replace(/(\?.*)?$/, "?device=webgpu"));
    await page.waitForFunction(() => document.body.dataset.phase === "failed");
    expect(await page.locator("#error").textContent()).toMatch(/WebGPU/);
  });

  it.each([true, false])(
    "writes what Node writes, on WebGPU (SwiftShader; isolated: %s)",
    async (isolated) => {
      const { page, strays } = await start({ isolated }, { webGpu: true }, "?device=webgpu");
      await whenReady(page);
      expect(await page.locator("#device-facts").textContent()).toMatch(/^WebGPU: .*SwiftShader/i);
      const text = await generateGreedily(page, prompt, isolated ? 32 : 16);
      expect(text.length).toBeGreaterThan(15);
      expect(expected.startsWith(text)).toBe(true);
      expect(Number(await page.locator("#speed").textContent())).toBeGreaterThan(0);
      expect(await page.locator("#pages").getAttribute("aria-label")).toMatch(/[12] of 16 pages in use/);
      await page.screenshot({ path: join(artefacts, "playground-webgpu.png") });
      expect(strays).toEqual([]);
    },
    slow,
  );

  it(
    "opens the model anew when the GPU goes away, and goes on writing",
    async () => {
      const { page, context } = await start({ isolated: true }, { webGpu: true }, "?device=webgpu");
      await whenReady(page);
      const generated = generateGreedily(page, prompt, 32);
      await page.waitForFunction(
        () => (document.getElementById("output-text")?.textContent ?? "").length > 5,
      );
      await (await context.newCDPSession(page)).send("Browser.crashGpuProcess");
      await page.waitForFunction(() => document.body.dataset.phase === "opening");
      await generated;
      await page.waitForFunction(() =>
        document.getElementById("status")?.textContent?.startsWith("32 tokens"),
      );
      const text = (await page.locator("#output-text").textContent()) ?? "";
      expect(text.length).toBeGreaterThan(20);
      expect(expected.startsWith(text)).toBe(true);
    },
    slow,
  );

  it("says that threads want an isolated page", async () => {
    const { page } = await start({ isolated: false }, {}, "?device=cpu&threads=2");
    await page.waitForFunction(() => document.body.dataset.phase === "failed");
    expect(await page.locator("#error").textContent()).toMatch(
      /one thread only, since the page is not cross-origin/,
    );
  });

  it("fetches the model once, and works without a network at the second visit", async () => {
    const { page, context, site, strays } = await start({ isolated: true }, {}, "?device=cpu");
    await whenReady(page);
    await page.evaluate(async () => void (await navigator.serviceWorker.ready));
    const weights = () => site.requests.filter(({ path }) => path.endsWith(".safetensors"));
    expect(weights().map(({ bytes }) => bytes)).toEqual([65536, 8_399_864]);
    const before = weights().length;
    await page.reload();
    await whenReady(page);
    // Only the question whether it is still the same.
    expect(
      weights()
        .slice(before)
        .every(({ bytes }) => bytes <= 65536),
    ).toBe(true);
    await site.close();
    open.splice(open.indexOf(site), 1);
    await context.setOffline(true);
    await page.goto(`${site.address}?device=cpu`);
    await whenReady(page);
    expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
    expect(await generateGreedily(page, prompt, tokens)).toBe(expected);
    await page.goto(`${site.address}planner.html`);
    expect(await page.locator("#answer").textContent()).toContain("GPUs");
    expect(strays).toEqual([]);
  });

  it("becomes isolated at the second visit of a server that sends no headers", async () => {
    const { page } = await start({ isolated: false }, {}, "?device=cpu");
    await whenReady(page);
    await page.evaluate(async () => void (await navigator.serviceWorker.ready));
    await page.reload();
    await whenReady(page);
    expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
    expect(await generateGreedily(page, prompt, tokens)).toBe(expected);
  });

  it("reads a server that knows no ranges, and forgets on request", async () => {
    const { page, site } = await start({ isolated: true, ranges: false }, {}, "?device=cpu");
    await whenReady(page);
    expect(await generateGreedily(page, prompt, tokens)).toBe(expected);
    const kept = () =>
      page.evaluate(async () => {
        const names: string[] = [];
        const top = (await navigator.storage.getDirectory()) as unknown as { keys(): AsyncIterable<string> };
        for await (const name of top.keys()) names.push(name);
        return names;
      });
    expect(await kept()).toEqual(["flashmla-models"]);
    await page.locator("#chooser summary").click();
    await page.locator("#forget").click();
    await page.waitForFunction(() => document.getElementById("status")?.textContent?.includes("removed"));
    expect(await kept()).toEqual([]);
    expect(site.requests.length).toBeGreaterThan(5);
  });

  it("opens a picked folder, and says what is wrong with a bad one or a bad address", async () => {
    const { page } = await start({ isolated: true }, {}, "?device=cpu");
    await whenReady(page);
    await page.locator("#chooser summary").click();
    await page.locator("#folder").setInputFiles(shipped);
    await page.waitForFunction(() => document.body.dataset.phase === "opening");
    await whenReady(page);
    expect(await page.locator("#model-facts").textContent()).toContain("shakespeare-mla (youtu)");
    expect(await generateGreedily(page, prompt, tokens)).toBe(expected);

    const failure = async (act: () => Promise<void>) => {
      await act();
      await page.waitForFunction(() => document.body.dataset.phase === "failed");
      const text = (await page.locator("#error").textContent()) ?? "";
      expect(text.trim().split("\n")).toHaveLength(1);
      expect(await page.locator("#generate").isDisabled()).toBe(true);
      return text;
    };
    const bad = mkdtempSync(join(tmpdir(), "flashmla-bad-"));
    mkdirSync(join(bad, "empty"));
    writeFileSync(join(bad, "empty", "notes.txt"), "nothing");
    mkdirSync(join(bad, "broken"));
    for (const name of ["config.json", "tokenizer.json"]) {
      writeFileSync(join(bad, "broken", name), readFileSync(join(shipped, name)));
    }
    writeFileSync(join(bad, "broken", "model.safetensors"), "not a checkpoint at all");
    expect(await failure(() => page.locator("#folder").setInputFiles(join(bad, "empty")))).toMatch(
      /empty holds no config\.json/,
    );
    expect(await failure(() => page.locator("#folder").setInputFiles(join(bad, "broken")))).toMatch(
      /broken\/model\.safetensors is not a valid safetensors file/,
    );
    const openAddress = (address: string) => async () => {
      await page.locator("#address").fill(address);
      await page.locator("#open-address").click();
    };
    expect(await failure(openAddress("models/none/"))).toMatch(/models\/none holds no config\.json/);
    expect(await failure(openAddress("http://127.0.0.1:1/model/"))).toMatch(/cannot be reached/);
    expect(await failure(openAddress("ftp://host/"))).toMatch(/is not the address of a model/);
    await openAddress("models/shakespeare-mla/")();
    await page.waitForFunction(() => document.body.dataset.phase === "opening");
    await whenReady(page);
    rmSync(bad, { recursive: true });
  });

  it("works from the keyboard alone", async () => {
    const { page } = await start({ isolated: true }, {}, "?device=cpu");
    await whenReady(page);
    const focused = () => page.evaluate(() => document.activeElement?.id ?? "");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    expect(await focused()).toBe("prompt");
    await page.keyboard.press("Control+a");
    await page.keyboard.type("HAMLET:\n");
    await page.keyboard.press("Control+Enter");
    await page.waitForFunction(() => (document.getElementById("output-text")?.textContent ?? "").length > 20);
    await page.keyboard.press("Escape");
    await page.waitForFunction(() => document.body.dataset.phase === "ready");
    const ids: string[] = [];
    for (let i = 0; i < 8; i++) {
      await page.keyboard.press("Tab");
      ids.push(await focused());
      if (await page.evaluate(() => document.activeElement === document.body)) break;
      const outline = await page.evaluate(() => getComputedStyle(document.activeElement!).outlineStyle);
      expect(outline).not.toBe("none");
    }
    expect(ids).toContain("generate");
    expect(ids).toContain("output");
    await page.keyboard.press("Shift+Tab");
    await page.locator("#chooser summary").focus();
    await page.keyboard.press("Enter");
    await page.keyboard.press("Tab");
    expect(await focused()).toBe("device");
  });

  it("shows what it does: the screenshot", async () => {
    const { page } = await start(
      { isolated: true },
      { viewport: { width: 1200, height: 800 } },
      "?device=cpu",
    );
    await whenReady(page);
    await page.evaluate(() => {
      (document.getElementById("seed") as HTMLInputElement).value = "7";
    });
    await page.locator("#generate").click();
    await page.waitForFunction(() => document.body.dataset.phase === "ready");
    const canvas = page.locator("#pages");
    const colors = await canvas.evaluate((one: HTMLCanvasElement) => {
      const { data } = one.getContext("2d")!.getImageData(0, 0, one.width, one.height);
      return new Set(new Uint32Array(data.buffer)).size;
    });
    // Squares, dots of tokens and free dots.
    expect(colors).toBeGreaterThanOrEqual(3);
    await page.screenshot({ path: join(artefacts, "playground.png") });
  });

  it("fits a phone", async () => {
    const phone = { viewport: { width: 390, height: 844 }, isPhone: true, dark: true };
    const { page } = await start({ isolated: true }, phone, "?device=cpu");
    await whenReady(page);
    expect((await generateGreedily(page, prompt, 200)).length).toBeGreaterThan(100);
    for (const path of ["", "planner.html"]) {
      if (path !== "") await page.goto(page.url().replace(/\?.*/, path));
      expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(390);
      for (const button of await page.locator("button:visible").all()) {
        expect((await button.boundingBox())!.height).toBeGreaterThanOrEqual(44);
      }
      await page.screenshot({ path: join(artefacts, `phone${path && "-planner"}.png`), fullPage: true });
    }
  });

  it("has no faults that axe finds, light and dark, and does not move where that is not wanted", async () => {
    const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
    for (const dark of [false, true]) {
      const { page, context } = await start({ isolated: true }, { dark, reducedMotion: true }, "?device=cpu");
      await whenReady(page);
      await page.locator("#chooser summary").click();
      await page.locator(".settings summary").click();
      const violations = async () => {
        await page.evaluate(axe);
        return page.evaluate(async () => {
          const { axe } = globalThis as unknown as {
            axe: { run(): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> };
          };
          const found = (await axe.run()).violations;
          return found.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
        });
      };
      expect(await violations()).toEqual([]);
      await page.locator("#prompt").press("Control+Enter");
      const animation = await page.evaluate(
        () => getComputedStyle(document.getElementById("output-text")!, "::after").animationName,
      );
      expect(animation).toBe("none");
      await page.goto(page.url().replace(/\?.*/, "planner.html"));
      expect(await violations()).toEqual([]);
      await context.close();
    }
  });
});
