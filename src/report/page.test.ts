import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { UserError } from "../base/errors.ts";
import { type Chart, chartSpec } from "./chart.ts";
import { logTicks } from "./chart-axis.ts";
import { escapeHtml, type ReportPage, renderPage } from "./page.ts";
import { renderChart } from "./render-chart.ts";
import { writePage } from "./write-page.ts";

const lines: Chart = {
  kind: "line",
  title: "Error by length",
  caption: "It grows < linearly.",
  x: { title: "cached tokens", scale: "log" },
  y: { title: "error", scale: "log" },
  series: [
    { name: "bf16", points: [1024, 4096, 1048576].map((x) => ({ x, y: x * 1e-9 })) },
    { name: "fitted <law>", isEstimated: true, points: [1024, 1048576].map((x) => ({ x, y: x * 2e-9 })) },
  ],
  rules: [{ name: "half a step", axis: "y", value: 1e-4 }],
};
const bars: Chart = {
  kind: "bar",
  title: "GPUs",
  x: { title: "requests a second" },
  y: { title: "GPUs" },
  series: [
    { name: "latent", points: ["10", "100"].map((x, i) => ({ x, y: 3 * i + 1 })) },
    { name: "full", isEstimated: true, points: ["10", "100"].map((x, i) => ({ x, y: 9 * i + 2 })) },
  ],
};
const page: ReportPage = {
  title: "Accuracy & cost",
  findings: ["bf16 costs <b>nothing</b>."],
  sections: [
    {
      heading: "Errors",
      blocks: [
        { kind: "text", text: "In units of the result." },
        { kind: "list", items: ["one", "two"] },
        {
          kind: "table",
          caption: "worst",
          head: ["format", "error"],
          rows: [
            ["bf16", "1.0e-3"],
            ["fp8", "−2"],
          ],
        },
        { kind: "chart", chart: lines },
        { kind: "chart", chart: bars },
      ],
    },
  ],
  origin: [["commit", "abc"]],
};

const count = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].length;

describe("charts", () => {
  it("hold every point of every series, named", () => {
    const spec = JSON.parse(JSON.stringify(chartSpec(lines)));
    expect(spec.data.values).toHaveLength(5);
    expect(spec.data.values[3]).toEqual({
      series: "fitted <law>",
      estimated: true,
      fitted: false,
      x: 1024,
      y: 1024 * 2e-9,
    });
  });
  it("draw one mark a point, the legend and the rules", async () => {
    const svg = await renderChart(lines, "c");
    expect(svg).toMatch(/^<svg/);
    expect(svg).toContain("fitted &lt;law&gt;");
    expect(svg).toContain("half a step");
    expect(svg).toContain('stroke-dasharray="6,4"');
    expect(count(svg, /aria-roledescription="point"/g)).toBe(5);
    expect(svg).not.toMatch(/NaN|undefined|Infinity/);
  });
  it("draw one bar a point, side by side", async () => {
    const svg = await renderChart(bars, "c");
    const starts = [...svg.matchAll(/aria-roledescription="bar" d="M([\d.]+),/g)].map((match) => match[1]);
    expect(new Set(starts).size).toBe(4);
  });
  it("draw a fitted law in its series' colour, without marks or legend", async () => {
    const [measured, law] = lines.series;
    const series = [measured!, { ...law!, fittedTo: "bf16" }];
    const svg = await renderChart({ ...lines, series }, "c");
    expect(count(svg, /aria-roledescription="point"/g)).toBe(3);
    expect(svg).not.toMatch(/<text[^>]*>fitted &lt;law&gt;/);
    const colours = [...svg.matchAll(/aria-roledescription="line mark".*?stroke="(#\w+)"/g)].map(
      (match) => match[1],
    );
    expect(new Set(colours).size).toBe(1);
    expect(() => chartSpec({ ...lines, series: [measured!, { ...law!, fittedTo: "nobody" }] })).toThrow(
      /no series/,
    );
  });
  it("label ticks by size: 1k, 0.5, 1e-4", async () => {
    const svg = await renderChart(lines, "c");
    expect(svg).toMatch(/<text[^>]*>4k</);
    expect(svg).toMatch(/<text[^>]*>1e-5</);
  });
  it("label context lengths as they are called: 512, 2k, 1M", async () => {
    const points = [512, 2048, 2 ** 20].map((x) => ({ x, y: 1 + x }));
    const svg = await renderChart({ ...lines, series: [{ name: "a", points }], rules: [] }, "c");
    for (const label of ["512", "2k", "1M"]) expect(svg).toMatch(new RegExp(`<text[^>]*>${label}<`));
  });
  it("have powers of ten on a log axis, and 2 and 5 times them where it is short", () => {
    expect(logTicks(0.00002, 0.3)).toEqual([1e-4, 1e-3, 1e-2, 0.1]);
    expect(logTicks(8, 130)).toEqual([10, 20, 50, 100]);
    expect(logTicks(1000, 1000)).toEqual([1000]);
  });
  it("make vega-lite warn of nothing", async () => {
    const warn = vi.spyOn(console, "warn").mockImplementation(() => {});
    await renderChart(lines, "c");
    await renderChart(bars, "c");
    expect(warn.mock.calls).toEqual([]);
    warn.mockRestore();
  });
  it("refuse what their axes cannot show", () => {
    const with_ = (y: number): Chart => ({ ...lines, series: [{ name: "a", points: [{ x: 1, y }] }] });
    expect(() => chartSpec(with_(0))).toThrow(new RangeError("y of a must be positive on a log axis, got 0"));
    expect(() => chartSpec(with_(Number.NaN))).toThrow(RangeError);
    expect(() => chartSpec({ ...lines, series: [] })).toThrow(RangeError);
    expect(() => chartSpec({ ...lines, series: [{ name: "a", points: [] }] })).toThrow(/is empty/);
    expect(() => chartSpec({ ...lines, rules: [{ name: "r", axis: "x", value: -1 }] })).toThrow(/the rule r/);
  });
});

describe("a report", () => {
  it("is one document without scripts or anything to load", async () => {
    const html = await renderPage(page);
    expect(html.startsWith("<!doctype html>")).toBe(true);
    expect(count(html, /<svg/g)).toBe(2);
    const outside = html.replaceAll(/xmlns(:xlink)?="[^"]*"/g, "");
    expect(outside).not.toMatch(/https?:|<script|<link|@import|\bsrc=/);
  });
  it("shows text as it stands and sets numbers to the right", async () => {
    const html = await renderPage(page);
    expect(html).toContain("bf16 costs &lt;b&gt;nothing&lt;/b&gt;.");
    expect(html).toContain("<td>bf16</td>");
    expect(html).toContain('<td class="number">−2</td>');
    expect(html).toContain("<title>Accuracy &amp; cost</title>");
    expect(escapeHtml('"&<>')).toBe("&quot;&amp;&lt;&gt;");
  });
  it("folds a long table, and sets charts that follow each other side by side", async () => {
    const table = { kind: "table", isFolded: true, head: ["a"], rows: [["1"], ["2"]] } as const;
    const chart = { kind: "chart", chart: lines } as const;
    const html = await renderPage({ ...page, sections: [{ heading: "h", blocks: [chart, chart, table] }] });
    expect(html).toMatch(/<details><summary>All 2 rows<\/summary>[\s\S]*<td class="number">2<\/td>/);
    expect(
      html.match(/<div class="charts">([\s\S]*?)<\/div>\n<details>/)![1]!.match(/<figure>/g),
    ).toHaveLength(2);
  });
  it("gives every id once", async () => {
    const ids = [...(await renderPage(page)).matchAll(/\bid="([^"]+)"/g)].map((match) => match[1]);
    expect(new Set(ids).size).toBe(ids.length);
  });
  it("is written into a folder that is made, or refused in a sentence", async () => {
    const folder = mkdtempSync(join(tmpdir(), "report-"));
    try {
      await writePage(page, join(folder, "a/b.html"));
      expect(readFileSync(join(folder, "a/b.html"), "utf8")).toContain("</html>");
      writeFileSync(join(folder, "file"), "");
      await expect(writePage(page, join(folder, "file/b.html"))).rejects.toThrow(UserError);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
