import type { DeviceKind } from "../device/device.ts";
import type { LatentDtype } from "../kernels/common/latent-cache.ts";
import { fitGrowth, type GrowthLaw } from "./growth-law.ts";
import type { ModelEffect, ModelEffects } from "./model-effect.ts";
import type { StreamName } from "./streams.ts";
import type { AttentionRow, Study } from "./study.ts";

/** Everything that `flashmla accuracy` found. */
export interface AccuracyResult {
  /** Of every device that attention was measured on; the model ran on the first. */
  readonly devices: readonly { readonly kind: DeviceKind; readonly name: string }[];
  readonly study: Study;
  /** Null when it was not asked for. */
  readonly model: (ModelEffects & { readonly name: string; readonly tokens: number }) | null;
}

/** Rows of text; the first is the head. */
export type Rows = readonly (readonly string[])[];

/** How the error of one format grows on one kind of context. */
export interface FittedGrowth {
  readonly device: DeviceKind;
  readonly stream: StreamName;
  readonly dtype: LatentDtype;
  readonly output: "out" | "lse";
  readonly law: GrowthLaw | null;
}

/** A context length for people: 1k, 64k, 1M. */
export function lengthName(length: number): string {
  if (length % 2 ** 20 === 0) return `${length / 2 ** 20}M`;
  return length % 1024 === 0 ? `${length / 1024}k` : String(length);
}

/** An error in scientific notation. */
export const scientific = (value: number) => (value === 0 ? "0" : value.toExponential(1));

/** A share in percent: two decimals, or two digits where those would all be 0. */
export function percent(share: number): string {
  const value = 100 * share;
  if (value === 0 || value >= 0.01) return `${value.toFixed(2)} %`;
  const decimals = 1 - Math.floor(Math.log10(value));
  return `${value.toFixed(Math.min(20, decimals))} %`;
}

/** Values of `of` among `rows`, each once, in the order of their first mention. */
export const distinct = <Row, Value>(rows: readonly Row[], of: (row: Row) => Value): Value[] => [
  ...new Set(rows.map(of)),
];

/** Devices in the order of the rows. */
export const devicesOf = ({ attention }: Study): DeviceKind[] => distinct(attention, (row) => row.device);

/** The part of a study that one device did. */
export const studyOf = (study: Study, device: DeviceKind): Study => ({
  ...study,
  attention: study.attention.filter((row) => row.device === device),
});

/** The row of one context and format. */
export const findRow = (
  rows: readonly AttentionRow[],
  stream: StreamName,
  dtype: LatentDtype,
  length: number,
) => rows.find((row) => row.stream === stream && row.dtype === dtype && row.length === length);

/** The fitted laws of every device, kind of context and format, of the output and of the log-sum-exp. */
export function fittedGrowth(study: Study): FittedGrowth[] {
  return devicesOf(study).flatMap((device) => {
    const { attention } = studyOf(study, device);
    return distinct(attention, (row) => row.stream).flatMap((stream) =>
      distinct(attention, (row) => row.dtype).flatMap((dtype) =>
        (["out", "lse"] as const).map((output) => {
          const rows = attention.filter((row) => row.stream === stream && row.dtype === dtype);
          const law = fitGrowth(rows.map((row) => ({ length: row.length, error: row[output] })));
          return { device, stream, dtype, output, law };
        }),
      ),
    );
  });
}

/** Errors of `output` by context length, a row for every device, kind of context and format, with the exponent of its growth. */
export function errorRows(study: Study, output: "out" | "lse"): Rows {
  const lengths = distinct(study.attention, (row) => row.length);
  const laws = fittedGrowth(study).filter((fitted) => fitted.output === output);
  const isOne = devicesOf(study).length === 1;
  const rows = laws.map(({ device, stream, dtype, law }) => {
    const { attention } = studyOf(study, device);
    const errors = lengths.map((length) => findRow(attention, stream, dtype, length)?.[output]);
    const cells = errors.map((error) => (error === undefined ? "" : scientific(error)));
    const name = isOne ? stream : `${stream}, ${device}`;
    return [name, dtype, ...cells, law === null ? "" : law.exponent.toFixed(2)];
  });
  const name = output === "out" ? "output, relative" : "log-sum-exp, absolute";
  return [[name, "cache", ...lengths.map(lengthName), "exponent"], ...rows];
}

/** Errors of ways of adding up by context length. */
export function accumulationRows({ accumulation }: Study): Rows {
  const lengths = distinct(accumulation, (row) => row.length);
  const rows = distinct(accumulation, (row) => row.stream).flatMap((stream) =>
    distinct(accumulation, (row) => row.accumulator).map((accumulator) => {
      const errors = lengths.map(
        (length) =>
          accumulation.find(
            (row) => row.stream === stream && row.accumulator === accumulator && row.length === length,
          )?.error,
      );
      return [stream, accumulator, ...errors.map((error) => (error === undefined ? "" : scientific(error)))];
    }),
  );
  return [["context", "sums in", ...lengths.map(lengthName)], ...rows];
}

/** The model's figures, a row for every format. */
export function modelRows(effects: readonly ModelEffect[]): Rows {
  const head = [
    "cache",
    "bytes a token and layer",
    "perplexity",
    "bits/byte",
    "same choice",
    "same continuation",
  ];
  const rows = effects.map((effect) => [
    effect.dtype,
    String(effect.bytesPerTokenAndLayer),
    effect.perplexity.toFixed(4),
    effect.bitsPerByte.toFixed(4),
    percent(effect.agreement),
    `${effect.sameTokens.toFixed(1)} of 64 tokens`,
  ]);
  return [head, ...rows];
}

/** What was not measured, with the reason. */
export const skippedOf = ({ study, model }: AccuracyResult): Study["skipped"] => [
  ...(model?.skipped ?? []),
  ...study.skipped,
];

/** {@link skippedOf} as a table. */
export const skippedRows = (result: AccuracyResult): Rows => [
  ["not measured", "reason"],
  ...skippedOf(result).map(({ what, reason }) => [what, reason]),
];
