import type { DeviceKind } from "../device/device.ts";
import {
  type AccuracyResult,
  devicesOf,
  distinct,
  type FittedGrowth,
  findRow,
  fittedGrowth,
  lengthName,
  percent,
  scientific,
  skippedOf,
  studyOf,
} from "./accuracy-tables.ts";
import type { Study } from "./study.ts";

function sentenceOnOutput(study: Study, device: DeviceKind): string[] {
  const { attention } = studyOf(study, device);
  const realistic = attention.filter((row) => row.stream === "realistic");
  const last = realistic.reduce((most, row) => Math.max(most, row.length), 0);
  const first = realistic.reduce((least, row) => Math.min(least, row.length), Number.POSITIVE_INFINITY);
  const parts = distinct(realistic, (row) => row.dtype).flatMap((dtype) => {
    const [short, long] = [
      findRow(realistic, "realistic", dtype, first),
      findRow(realistic, "realistic", dtype, last),
    ];
    if (short === undefined || long === undefined) return [];
    return [`${dtype} ${percent(short.out)} and ${percent(long.out)}`];
  });
  if (parts.length === 0) return [];
  return [
    `How far attention's output is from exact, at ${lengthName(first)} and at ${lengthName(last)} tokens of a realistic context (${device}): ${parts.join(", ")}.`,
  ];
}

function sentenceOnGrowth(study: Study): string[] {
  const laws = fittedGrowth(study).filter(({ output, law }) => output === "out" && law !== null);
  const steepest = laws.reduce<FittedGrowth | null>(
    (most, one) => (most === null || one.law!.exponent > most.law!.exponent ? one : most),
    null,
  );
  if (steepest === null) return [];
  const growth = 2 ** steepest.law!.exponent;
  return [
    `Of all formats and contexts the fastest growth is that of ${steepest.dtype} on ${steepest.stream} contexts (${steepest.device}): length to the power of ${steepest.law!.exponent.toFixed(2)}, ${growth.toFixed(2)} times the error for twice the context.`,
  ];
}

function sentenceOnModel({ model }: AccuracyResult): string[] {
  const [exact, ...others] = model?.effects ?? [];
  if (exact === undefined || model === null) return [];
  const parts = others.map(({ dtype, perplexity, agreement }) => {
    const change = perplexity / exact.perplexity - 1;
    return `${dtype} ${change < 0 ? "−" : "+"}${percent(Math.abs(change))} (the likeliest token is the same at ${percent(agreement)} of positions)`;
  });
  return [
    `What ${model.name} loses on ${model.tokens} tokens of held-out text, as perplexity beside ${exact.perplexity.toFixed(3)} with an ${exact.dtype} cache: ${parts.join(", ")}.`,
  ];
}

function sentenceOnSums({ accumulation }: Study): string[] {
  const last = accumulation.reduce((most, row) => Math.max(most, row.length), 0);
  const of = (accumulator: string) =>
    accumulation.find(
      (row) => row.stream === "all equal" && row.length === last && row.accumulator === accumulator,
    )?.error;
  const [wide, split, narrow] = [of("float32"), of("float32, 16 splits"), of("bf16")];
  if (wide === undefined || split === undefined || narrow === undefined) return [];
  return [
    `Where all ${lengthName(last)} tokens count alike, sums in float32 are off by ${scientific(wide)} (${scientific(split)} in 16 splits, as the kernels add up) and sums in bf16 by ${narrow < 1 ? scientific(narrow) : `${narrow.toFixed(0)} times the result`}: what is kept may be narrow, what is added up may not.`,
  ];
}

/** The finding in plain words, a sentence each. */
export function findingsOf(result: AccuracyResult): string[] {
  const skipped = skippedOf(result);
  const missing =
    skipped.length === 0
      ? []
      : [`Not measured: ${skipped.length} of the cases; they are listed below with the reason.`];
  return [
    ...sentenceOnModel(result),
    ...devicesOf(result.study).flatMap((device) => sentenceOnOutput(result.study, device)),
    ...sentenceOnGrowth(result.study),
    ...sentenceOnSums(result.study),
    ...missing,
  ];
}
