import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { assumedEfficiency, defaultLoad, STEP_OVERHEAD_SECONDS } from "../../src/economics/assumptions.ts";
import { findGpu, parseGpus } from "../../src/economics/gpus.ts";
import { type PlanInput, planDeployment } from "../../src/economics/plan.ts";
import { costRows, findingsOf } from "../../src/economics/plan-tables.ts";
import { presets } from "../../src/economics/presets.ts";
import { artefacts, buildSite, hasChromium, type Visitor, visit } from "./browser.ts";
import { type Site, serveSite } from "./site.ts";

const data = readFileSync(join(import.meta.dirname, "..", "..", "data", "gpus.json"), "utf8");
const gpu = findGpu(parseGpus(JSON.parse(data), "gpus.json"), "h200-sxm");
const input = (change: Partial<PlanInput["load"]> = {}, model = "7b"): PlanInput => ({
  model: presets[model]!,
  deployment: {
    ...{ gpu, tensorParallel: 1, weightDtype: "bf16", cacheDtype: "bf16" },
    ...{ efficiency: assumedEfficiency, overheadSeconds: STEP_OVERHEAD_SECONDS },
  },
  load: { ...defaultLoad, requestsPerSecond: 128, ...change },
  pricePerHour: gpu.pricePerHour!,
});

describe.skipIf(!hasChromium())("the planner in Chromium", () => {
  let folder: string;
  let site: Site;
  let visitor: Visitor;
  beforeAll(async () => {
    folder = await buildSite();
    site = await serveSite(folder, { isolated: true });
    visitor = await visit(site.address);
    await visitor.page.goto(`${site.address}planner.html`);
  });
  afterAll(async () => {
    await visitor?.close();
    await site?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const shows = async (wanted: PlanInput) => {
    const plan = planDeployment(wanted);
    const { page } = visitor;
    expect(await page.locator("#answer").textContent()).toBe(findingsOf(plan, wanted)[0]);
    const cells = await page.locator("table").first().locator("tbody tr").all();
    const rows = await Promise.all(cells.map((row) => row.locator("th, td").allTextContents()));
    expect(rows).toEqual(costRows(plan).slice(1));
  };

  it("plans as the library does", async () => {
    await shows(input());
    expect(visitor.strays).toEqual([]);
    await visitor.page.screenshot({ path: join(artefacts, "planner.png"), fullPage: true });
  });

  it("follows sliders moved by keys, and keeps them in the address", async () => {
    const { page } = visitor;
    await page.locator("#requestsPerSecond").focus();
    await page.keyboard.press("End");
    await page.locator("#promptTokens").focus();
    for (let i = 0; i < 2; i++) await page.keyboard.press("ArrowRight");
    await shows(input({ requestsPerSecond: 1024, promptTokens: 2048 }));
    await page.reload();
    await shows(input({ requestsPerSecond: 1024, promptTokens: 2048 }));
  });

  it("plans other models, and says when a load is impossible", async () => {
    const { page } = visitor;
    await page.goto(`${site.address}planner.html`);
    await page.locator("#model").selectOption("deepseek-v2-lite");
    await shows(input({}, "deepseek-v2-lite"));
    await page.locator("#model").selectOption("deepseek-v3");
    expect(await page.locator("#answer").textContent()).toContain("weights do not fit");
    await page.locator("#promptTokens").focus();
    await page.keyboard.press("End");
    await page.locator("#model").selectOption("7b");
    expect(await page.locator("#error").textContent()).toContain("longer than the model's context");
  });
});
