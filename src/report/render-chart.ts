import { type Chart, chartSpec } from "./chart.ts";

/** A chart holds its data: whatever asks the network or the disk for more is a mistake. */
const refuseToLoad = (uri: string): Promise<never> =>
  Promise.reject(new Error(`a chart of a report must not load ${uri}`));
const noFiles = { load: refuseToLoad, sanitize: refuseToLoad, http: refuseToLoad, file: refuseToLoad };

/**
 * `chart` as the text of an SVG element that needs nothing else. `id` makes the names inside it unique on a page. Throws
 * RangeError for a chart that cannot be drawn (see `chartSpec`). Loads vega on its first call.
 */
export async function renderChart(chart: Chart, id: string): Promise<string> {
  const [vega, vegaLite] = await Promise.all([import("vega"), import("vega-lite")]);
  const spec = vegaLite.compile(chartSpec(chart)).spec;
  const loader = { ...vega.loader(), ...noFiles };
  const view = new vega.View(vega.parse(spec), { renderer: "none", loader, logLevel: vega.Error });
  try {
    const svg = await view.toSVG();
    return svg.replace(/\bid="([^"]+)"/g, `id="${id}-$1"`).replace(/url\(#([^)]+)\)/g, `url(#${id}-$1)`);
  } finally {
    view.finalize();
  }
}
