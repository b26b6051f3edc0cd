import * as z from "zod";
import { UserError } from "../base/errors.ts";
import type { Deployment, Efficiency } from "./roofline.ts";

const resultFields = z.object({
  name: z.string(),
  bound: z.enum(["compute", "memory"]),
  fraction: z.number().positive().max(2),
});
const reportFields = z.object({
  date: z.string(),
  machine: z.object({ slug: z.string() }),
  versions: z.object({ flashmla: z.string() }),
  results: z.array(resultFields).min(1),
});

/** Efficiencies from a bench file, with where they come from. */
export interface Calibration {
  readonly efficiency: Deployment["efficiency"];
  /** Cases behind each number; 0 where the assumption stays. */
  readonly cases: Readonly<Record<"attention" | "weights", Readonly<Record<keyof Efficiency, number>>>>;
  readonly origin: string;
}

const attentionCases = /^mla-(decode|prefill)\b/;
const weightCases = /^(linear|gated-mlp|expert-mlp|mla-prologue|mla-epilogue)\b/;

function middle(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

/**
 * The efficiencies that `report`, the parsed JSON of the bench file called `file`, measured: the median fraction of the ceiling over memory- and over compute-bound
 * cases of attention and of what reads weights, at most 1. `assumed` stays where a file has no such case. Throws
 * UserError for a file that is no report of `flashmla bench kernel`, or one of another version than `version`.
 */
export function calibrationOf(
  report: unknown,
  file: string,
  version: string,
  assumed: Deployment["efficiency"],
): Calibration {
  const parsed = reportFields.safeParse(report);
  if (!parsed.success) {
    const field = parsed.error.issues[0]?.path.join(".") || "its content";
    throw new UserError(
      `${file} is no report of flashmla bench kernel (${field} is not what it should be); make one with --out.`,
    );
  }
  const { versions, results, machine, date } = parsed.data;
  if (versions.flashmla !== version) {
    throw new UserError(
      `${file} was measured with flashmla ${versions.flashmla} and this is ${version}; measure it again.`,
    );
  }
  const of = (pattern: RegExp, bound: "compute" | "memory") =>
    results.filter((result) => result.bound === bound && pattern.test(result.name));
  const take = (pattern: RegExp, fallback: Efficiency) => {
    const found = { memory: of(pattern, "memory"), compute: of(pattern, "compute") };
    const share = (bound: "compute" | "memory") =>
      found[bound].length === 0 ? fallback[bound] : Math.min(1, middle(found[bound].map((r) => r.fraction)));
    return {
      efficiency: { memory: share("memory"), compute: share("compute") },
      cases: { memory: found.memory.length, compute: found.compute.length },
    };
  };
  const attention = take(attentionCases, assumed.attention);
  const weights = take(weightCases, assumed.weights);
  return {
    efficiency: { attention: attention.efficiency, weights: weights.efficiency },
    cases: { attention: attention.cases, weights: weights.cases },
    origin: `${file}, ${machine.slug}, ${date.slice(0, 10)}`,
  };
}
