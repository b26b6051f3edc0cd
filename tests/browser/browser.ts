import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { type BrowserContext, chromium, type Page } from "playwright-core";
import { expect } from "vitest";

const executable = process.env.FLASHMLA_CHROMIUM ?? "/usr/bin/chromium";

/** Whether Chromium is here; where `FLASHMLA_REQUIRE_BROWSER` is set it has to be. */
export function hasChromium(): boolean {
  if (existsSync(executable)) return true;
  if (process.env.FLASHMLA_REQUIRE_BROWSER) throw new Error(`there is no ${executable}`);
  return false;
}

/** Where screenshots are kept for people: artefacts of CI. */
export const artefacts: string = process.env.FLASHMLA_ARTEFACTS ?? join(import.meta.dirname, "artefacts");
mkdirSync(artefacts, { recursive: true });

/** Builds web/ into a new folder. */
export async function buildSite(): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "flashmla-web-"));
  const web = join(import.meta.dirname, "..", "..", "web");
  const vite = join(dirname(createRequire(import.meta.url).resolve("vite/package.json")), "bin", "vite.js");
  const flags = [
    "--config",
    join(web, "vite.config.ts"),
    "--outDir",
    folder,
    "--emptyOutDir",
    "--logLevel",
    "warn",
  ];
  // A process of its own: a test's environment would make a build for tests.
  await promisify(execFile)(process.execPath, [vite, "build", web, ...flags], {
    env: { ...process.env, NODE_ENV: "production" },
  });
  return folder;
}

const flags = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const webGpuFlags = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

/** A browser with a profile of its own. */
export interface Visitor {
  readonly context: BrowserContext;
  readonly page: Page;
  /** Addresses requested of other origins than the site's, and errors of the page. */
  readonly strays: readonly string[];
  close(): Promise<void>;
}

/** How a {@link Visitor} is set up. */
export interface VisitorOptions {
  readonly viewport?: { readonly width: number; readonly height: number };
  readonly isPhone?: boolean;
  readonly webGpu?: boolean;
  readonly dark?: boolean;
  readonly reducedMotion?: boolean;
}

/** Starts Chromium; `origin` is the only one that its pages may ask. */
export async function visit(origin: string, options: VisitorOptions = {}): Promise<Visitor> {
  const profile = mkdtempSync(join(tmpdir(), "flashmla-profile-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: executable,
    args: [...flags, ...(options.webGpu ? webGpuFlags : [])],
    viewport: options.viewport ?? { width: 1280, height: 860 },
    ...(options.isPhone ? { isMobile: true, hasTouch: true, deviceScaleFactor: 2 } : {}),
    colorScheme: options.dark ? "dark" : "light",
    reducedMotion: options.reducedMotion ? "reduce" : "no-preference",
  });
  const strays: string[] = [];
  context.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(origin) && !/^(blob|data|about):/.test(url)) strays.push(url);
  });
  const page = context.pages()[0] ?? (await context.newPage());
  page.on("pageerror", (error) => strays.push(`error: ${error.message}`));
  page.setDefaultTimeout(120_000);
  const close = async () => {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  };
  return { context, page, strays, close };
}

/** Waits until the playground's model is open. */
export async function whenReady(page: Page): Promise<void> {
  await page.waitForFunction(() => document.body.dataset.phase !== "opening", undefined, {
    timeout: 120_000,
  });
  const error = (await page.locator("#error").isVisible()) ? await page.locator("#error").textContent() : "";
  expect([error, await page.evaluate(() => document.body.dataset.phase)]).toEqual(["", "ready"]);
}

/** Generates greedily from `prompt` and gives the text. */
export async function generateGreedily(page: Page, prompt: string, tokens: number): Promise<string> {
  await page.locator("#prompt").fill(prompt);
  await page.evaluate((most) => {
    const set = (id: string, value: string) => {
      const input = document.getElementById(id) as HTMLInputElement;
      input.value = value;
      input.dispatchEvent(new Event("input", { bubbles: true }));
    };
    set("temperature", "0");
    set("max-tokens", String(most));
  }, tokens);
  await page.locator("#generate").click();
  await page.waitForFunction(() => document.body.dataset.phase !== "generating", undefined, {
    timeout: 200_000,
  });
  expect(await page.locator("#error").isVisible()).toBe(false);
  return (await page.locator("#output-text").textContent()) ?? "";
}
