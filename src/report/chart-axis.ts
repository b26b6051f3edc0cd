import type { Chart } from "./chart.ts";

/** Thousands and more as 1k, 1M; small values with an exponent; what lies between as it is. */
const tickLabel =
  "abs(datum.value) >= 1000 ? format(datum.value, '~s') : datum.value != 0 && abs(datum.value) < 0.01 ? format(datum.value, '.1~e') : format(datum.value, '~g')";

/** Ticks of a log axis from `least` to `most`: powers of ten, with 2 and 5 times them where there are few. */
export function logTicks(least: number, most: number): number[] {
  const steps = Math.log10(most / least) > 3 ? [1] : [1, 2, 5];
  const ticks: number[] = [];
  for (let power = Math.floor(Math.log10(least)); power <= Math.log10(most); power++) {
    ticks.push(...steps.map((step) => Number(`${step}e${power}`)));
  }
  return ticks.filter((tick) => tick >= least && tick <= most);
}

/** Whether all are powers of two from 64 on, few enough to be told each: context lengths. */
const arePowersOfTwo = (values: readonly number[]): boolean =>
  values.length <= 14 && values.every((value) => value >= 64 && Number.isInteger(Math.log2(value)));

/** 512, 2k, 1M: as context lengths are called. */
const binaryLabel =
  "datum.value >= 1048576 ? datum.value / 1048576 + 'M' : datum.value >= 1024 ? datum.value / 1024 + 'k' : datum.value";

/** Room beyond the outermost values of a log axis, as a factor. */
const LOG_MARGIN = 1.3;

/** The encoding of one axis of `chart`; a linear one begins at 0 when `isZeroBased`. */
export function axisOf(chart: Chart, name: "x" | "y", isZeroBased: boolean) {
  const { title, scale = "linear" } = chart[name];
  const common = { field: name, type: "quantitative" as const, title };
  if (scale === "linear") {
    return {
      ...common,
      axis: { labelExpr: tickLabel, tickCount: 8 },
      scale: { type: scale, zero: isZeroBased },
    };
  }
  const rules = (chart.rules ?? []).filter(({ axis }) => axis === name).map(({ value }) => value);
  const values = [
    ...chart.series.flatMap(({ points }) => points.map((point) => Number(point[name]))),
    ...rules,
  ];
  const domain = [Math.min(...values) / LOG_MARGIN, Math.max(...values) * LOG_MARGIN] as const;
  const distinct = [...new Set(values)].sort((a, b) => a - b);
  const axis =
    name === "x" && arePowersOfTwo(distinct)
      ? { labelExpr: binaryLabel, values: distinct }
      : { labelExpr: tickLabel, values: logTicks(...domain) };
  return { ...common, axis, scale: { type: scale, nice: false, domain } };
}
