import type { TopLevelSpec } from "vega-lite";
import { axisOf } from "./chart-axis.ts";

/** One axis of a chart. */
export interface ChartAxis {
  /** What is shown, with its unit. */
  readonly title: string;
  /** Default: linear. Every value on a log axis must be positive. */
  readonly scale?: "linear" | "log";
}

/** A named line, or the bars of one colour. */
export interface ChartSeries {
  readonly name: string;
  /** Computed rather than measured: its line is dashed and its bars are pale. */
  readonly isEstimated?: boolean;
  /** Name of the series that this is fitted to: its line takes that colour, without marks and without a legend. */
  readonly fittedTo?: string;
  readonly points: readonly { readonly x: number | string; readonly y: number }[];
}

/** A horizontal or vertical line at a value, with its name beside it. */
export interface ChartRule {
  readonly name: string;
  readonly axis: "x" | "y";
  readonly value: number;
}

/** A chart of a report: lines over numbers, or groups of bars over categories in the order of their first mention. */
export interface Chart {
  readonly kind: "line" | "bar";
  readonly title: string;
  /** What the reader should see in it. */
  readonly caption?: string;
  readonly x: ChartAxis;
  readonly y: ChartAxis;
  readonly series: readonly ChartSeries[];
  readonly rules?: readonly ChartRule[];
}

/** Okabe and Ito's palette without its yellow: distinct for all common kinds of colour vision, on white. */
const palette = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"];
const shapes = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "triangle-right"];

/** Series a chart can tell apart, beside those fitted to them. */
const MOST_SERIES = palette.length;

function checkValue(value: number | string, axis: ChartAxis, where: string): void {
  if (typeof value === "string") return;
  if (!Number.isFinite(value)) throw new RangeError(`${where} must be finite, got ${value}`);
  if (axis.scale === "log" && value <= 0)
    throw new RangeError(`${where} must be positive on a log axis, got ${value}`);
}

/** Throws RangeError for a chart with nothing in it, too much in it, or values that its axes cannot show. */
function checkChart({ title, series, x, y, rules = [] }: Chart): void {
  const own = series.filter(({ fittedTo }) => fittedTo === undefined).map(({ name }) => name);
  if (own.length === 0 || own.length > MOST_SERIES) {
    throw new RangeError(`series of ${JSON.stringify(title)} must be 1 to ${MOST_SERIES}, got ${own.length}`);
  }
  const lost = series.find(({ fittedTo }) => fittedTo !== undefined && !own.includes(fittedTo));
  if (lost !== undefined)
    throw new RangeError(`${lost.name} is fitted to ${lost.fittedTo}, which is no series`);
  for (const { name, points } of series) {
    if (points.length === 0) throw new RangeError(`the series ${name} of ${JSON.stringify(title)} is empty`);
    for (const point of points) {
      checkValue(point.x, x, `x of ${name}`);
      checkValue(point.y, y, `y of ${name}`);
    }
  }
  for (const rule of rules) checkValue(rule.value, rule.axis === "x" ? x : y, `the rule ${rule.name}`);
}

function seriesScales({ series }: Chart) {
  const own = series.filter(({ fittedTo }) => fittedTo === undefined).map(({ name }) => name);
  const places = series.map(({ name, fittedTo }) => own.indexOf(fittedTo ?? name));
  const domain = series.map(({ name }) => name);
  const channel = (range: readonly string[]) => ({
    ...{ field: "series", type: "nominal" as const, title: null, legend: { values: own } },
    scale: { domain, range: places.map((place) => range[place]!) },
  });
  return { color: channel(palette), shape: channel(shapes) };
}

/** Estimated series: dashes on a line, pale bars. The legend has them in their names' entries already. */
const lineDash = {
  field: "estimated",
  type: "nominal" as const,
  legend: null,
  scale: {
    domain: [false, true],
    range: [
      [1, 0],
      [6, 4],
    ],
  },
};
const barOpacity = {
  field: "estimated",
  type: "ordinal" as const,
  legend: null,
  scale: { domain: [false, true], range: [1, 0.45] },
};

function lineLayer(chart: Chart): object[] {
  const { color, shape } = seriesScales(chart);
  const x = axisOf(chart, "x", false);
  const y = axisOf(chart, "y", true);
  return [
    { mark: { type: "line", strokeWidth: 2 }, encoding: { x, y, color, strokeDash: lineDash } },
    {
      transform: [{ filter: "!datum.fitted" }],
      mark: { type: "point", filled: true, size: 45, opacity: 1 },
      encoding: { x, y, color, shape },
    },
  ];
}

function barLayer(chart: Chart): object[] {
  const { color } = seriesScales(chart);
  const x = {
    ...{ field: "x", type: "nominal", title: chart.x.title, sort: null },
    axis: { labelAngle: 0, labelLimit: 160 },
  };
  const y = axisOf(chart, "y", true);
  const xOffset = { field: "series", type: "nominal", sort: chart.series.map(({ name }) => name) };
  return [{ mark: "bar", encoding: { x, y, color, opacity: barOpacity, xOffset } }];
}

function ruleLayers({ rules = [] }: Chart): object[] {
  return rules.flatMap(({ name, axis, value }) => {
    const data = { values: [{ value, name }] };
    const at = { [axis]: { field: "value", type: "quantitative" } };
    const text =
      axis === "y"
        ? { type: "text", align: "left", baseline: "bottom", x: 4, dy: -3, text: name }
        : { type: "text", align: "left", baseline: "top", y: 4, dx: 4, text: name };
    return [
      { data, mark: { type: "rule", color: "#555", strokeDash: [2, 2] }, encoding: at },
      { data, mark: { ...text, color: "#555" }, encoding: at },
    ];
  });
}

/**
 * The vega-lite specification of `chart`, its data inside. Throws RangeError for a chart that would show nothing, or more
 * series than can be told apart, or values that its axes cannot hold.
 */
export function chartSpec(chart: Chart): TopLevelSpec {
  checkChart(chart);
  const values = chart.series.flatMap(({ name, isEstimated = false, fittedTo, points }) =>
    points.map(({ x, y }) => ({
      series: name,
      estimated: isEstimated,
      fitted: fittedTo !== undefined,
      x,
      y,
    })),
  );
  const layer = [...(chart.kind === "line" ? lineLayer(chart) : barLayer(chart)), ...ruleLayers(chart)];
  const font = "system-ui, sans-serif";
  const spec: object = {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    ...{ width: 480, height: 260, background: "white", data: { values }, layer },
    config: {
      font,
      view: { stroke: null },
      axis: { gridColor: "#ececec" },
      legend: { orient: "bottom", columns: 4, labelLimit: 240 },
    },
  };
  return spec as TopLevelSpec;
}
