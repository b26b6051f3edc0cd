import type { Chart } from "./chart.ts";
import { renderChart } from "./render-chart.ts";

/** Rows of text below a head; cells that begin with a number are set to the right. */
export interface ReportTable {
  readonly caption?: string;
  /** Shown when the reader opens it: for long tables that few will read. */
  readonly isFolded?: boolean;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** One piece of a section. Text is plain: whatever looks like markup is shown as it stands. */
export type ReportBlock =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "list"; readonly items: readonly string[] }
  | ({ readonly kind: "table" } & ReportTable)
  | { readonly kind: "chart"; readonly chart: Chart };

/** A heading and what is below it. */
export interface ReportSection {
  readonly heading: string;
  readonly blocks: readonly ReportBlock[];
}

/** A report: what was found in plain words, then the figures, then where they come from. */
export interface ReportPage {
  readonly title: string;
  /** The finding in plain words, a paragraph each. */
  readonly findings: readonly string[];
  readonly sections: readonly ReportSection[];
  /** Names and values: date, commit, machine, flags. */
  readonly origin: readonly (readonly [name: string, value: string])[];
}

const style = `
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
.findings { background: #f3f7fb; border-left: 4px solid #0072b2; padding: .5rem 1rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: 1rem 0; }
caption { text-align: left; color: #444; } th, td { padding: .25rem .75rem; border-bottom: 1px solid #e5e5e5; text-align: left; }
th { border-bottom: 2px solid #999; } .number { text-align: right; }
figure { margin: 1.5rem 0; } figure h3 { font-size: 1rem; margin: 0; } figcaption { color: #444; font-size: .9rem; } svg { max-width: 100%; height: auto; }
details { margin: 1rem 0; } summary { cursor: pointer; color: #0072b2; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 0 1.5rem; }
tbody tr:hover { background: #f7f7f7; }
dt { float: left; clear: left; width: 10rem; color: #444; } dd { margin-left: 10rem; }
`;

const replacements: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
};

/** `text` with the four characters that HTML reads as markup replaced. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"]/g, (mark) => replacements[mark] ?? mark);
}

function renderCell(tag: "td" | "th", text: string, isNumber: boolean): string {
  return `<${tag}${isNumber ? ' class="number"' : ""}>${escapeHtml(text)}</${tag}>`;
}

function renderTable({ caption, isFolded = false, head, rows }: ReportTable): string {
  const isNumber = (cell: string) => cell === "–" || /^[−+<>≈$-]?\s?\d/.test(cell);
  const numeric = head.map((_, i) => rows.length > 0 && rows.every((row) => !row[i] || isNumber(row[i])));
  const line = (tag: "td" | "th", cells: readonly string[]) =>
    `<tr>${cells.map((cell, i) => renderCell(tag, cell, numeric[i] === true)).join("")}</tr>`;
  const title = caption === undefined ? "" : `<caption>${escapeHtml(caption)}</caption>`;
  const body = rows.map((row) => line("td", row)).join("\n");
  const table = `<div class="scroll"><table>${title}<thead>${line("th", head)}</thead><tbody>\n${body}\n</tbody></table></div>`;
  return isFolded ? `<details><summary>All ${rows.length} rows</summary>${table}</details>` : table;
}

async function renderFigure(chart: Chart, id: string): Promise<string> {
  const caption = chart.caption === undefined ? "" : `<figcaption>${escapeHtml(chart.caption)}</figcaption>`;
  const label = `role="img" aria-label="${escapeHtml(chart.title)}"`;
  const svg = await renderChart(chart, id);
  return `<figure><h3>${escapeHtml(chart.title)}</h3><div ${label}>${svg}</div>${caption}</figure>`;
}

async function renderBlock(block: ReportBlock, id: string): Promise<string> {
  if (block.kind === "table") return renderTable(block);
  if (block.kind === "chart") return renderFigure(block.chart, id);
  if (block.kind === "text") return `<p>${escapeHtml(block.text)}</p>`;
  return `<ul>${block.items.map((item) => `<li>${escapeHtml(item)}</li>`).join("")}</ul>`;
}

async function renderSection({ heading, blocks }: ReportSection, index: number): Promise<string> {
  const parts: string[] = [];
  for (const [i, block] of blocks.entries()) {
    // Charts that follow each other share a row where the window is wide.
    const isChart = (one: ReportBlock | undefined) => one?.kind === "chart";
    if (isChart(block) && !isChart(blocks[i - 1])) parts.push('<div class="charts">');
    parts.push(await renderBlock(block, `chart-${index}-${i}`));
    if (isChart(block) && !isChart(blocks[i + 1])) parts.push("</div>");
  }
  return `<section><h2>${escapeHtml(heading)}</h2>\n${parts.join("\n")}\n</section>`;
}

/**
 * `page` as one HTML document with its style and its charts inside: it opens without a network and holds no script. Throws
 * RangeError for a chart that cannot be drawn.
 */
export async function renderPage(page: ReportPage): Promise<string> {
  const sections: string[] = [];
  for (const [i, section] of page.sections.entries()) sections.push(await renderSection(section, i));
  const findings = page.findings.map((text) => `<p>${escapeHtml(text)}</p>`).join("\n");
  const origin = page.origin.map(
    ([name, value]) => `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd>`,
  );
  return [
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    `<title>${escapeHtml(page.title)}</title>\n<style>${style}</style>\n</head>\n<body>`,
    `<h1>${escapeHtml(page.title)}</h1>\n<div class="findings">\n${findings}\n</div>`,
    ...sections,
    `<section><h2>Where these figures come from</h2>\n<dl>${origin.join("\n")}</dl></section>`,
    "</body>\n</html>\n",
  ].join("\n");
}
