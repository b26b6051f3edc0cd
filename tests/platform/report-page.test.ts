import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { type Browser, chromium } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCli } from "../end-to-end/run-cli.ts";

/** Browsers as systems install them; `CHROMIUM` names another. Without one there is nothing to open a page in. */
const executable = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/google-chrome"].find(
  (path) => path !== undefined && existsSync(path),
);

/** The reports, the command that writes each, and how many charts it has. */
const reports: readonly (readonly [name: string, parameters: readonly string[], charts: number])[] = [
  ["compare", ["bench", "compare", "--preset", "tiny", "--contexts", "64,96,128", "--batches", "1,2"], 5],
  ["accuracy", ["accuracy", "--lengths", "64,128,256", "--width", "128", "--no-model"], 10],
  ["plan", ["plan", "--gpu", "a100-80gb", "--price", "2.5"], 6],
];

describe.skipIf(executable === undefined)("a report in a browser", () => {
  const folder = mkdtempSync(join(tmpdir(), "report-page-"));
  let browser: Browser;
  beforeAll(async () => {
    browser = await chromium.launch({ executablePath: executable!, args: ["--no-sandbox"] });
  });
  afterAll(async () => {
    await browser.close();
    rmSync(folder, { recursive: true });
  });

  it.each(reports)(
    "%s: opens without a network, every chart is drawn and nothing overflows",
    async (name, parameters, charts) => {
      const path = join(folder, `${name}.html`);
      expect((await runCli([...parameters, "--html", path])).code).toBe(0);
      const context = await browser.newContext({ offline: true, viewport: { width: 1100, height: 900 } });
      const page = await context.newPage();
      const problems: string[] = [];
      page.on("console", (message) => problems.push(message.text()));
      page.on("pageerror", (error) => problems.push(error.message));
      const requests: string[] = [];
      page.on("request", (request) => requests.push(request.url()));
      await page.goto(pathToFileURL(path).href);
      expect(requests).toEqual([pathToFileURL(path).href]);
      expect(problems).toEqual([]);
      expect(await page.locator(".findings p").first().innerText()).toMatch(/\w+ .*\./);
      expect(await page.locator("figure svg").count()).toBe(charts);
      for (const figure of await page.locator("figure").all()) {
        const box = (await figure.locator("svg").boundingBox())!;
        expect(box.width).toBeGreaterThan(300);
        expect(box.height).toBeGreaterThan(150);
        // Lines or bars, and a label on each axis.
        expect(
          await figure.locator("svg .mark-line path, svg .mark-rect path, svg .mark-symbol path").count(),
        ).toBeGreaterThan(1);
        expect(await figure.locator("svg text").count()).toBeGreaterThan(4);
      }
      expect(await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")).toBe(true);
      // A telephone: the page itself does not scroll sideways, its tables do.
      await page.setViewportSize({ width: 390, height: 800 });
      expect(await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")).toBe(true);
      for (const fold of await page.locator("details").all()) {
        expect(await fold.locator("table").isVisible()).toBe(false);
        await fold.locator("summary").click();
        expect(await fold.locator("table").isVisible()).toBe(true);
      }
      await context.close();
    },
  );
});
