import * as z from "zod";
import { UserError } from "../base/errors.ts";
import type { Gpu } from "./gpus.ts";
import type { Deployment, Efficiency } from "./roofline.ts";

const resultFields = z.object({
  name: z.string(),
  bound: z.enum(["compute", "memory"]),
  fraction: z.number().positive().max(2),
  /** The time of a case: on a GPU in the first, on the CPU in the second. */
  coldMicroseconds: z.optional(z.number().positive()),
  milliseconds: z.optional(z.number().positive()),
});
const reportFields = z.object({
  date: z.string(),
  machine: z.object({ slug: z.string() }),
  versions: z.object({ flashmla: z.string() }),
  results: z.array(resultFields).min(1),
  /** A GPU's are one record, the CPU's a list by threads. */
  ceilings: z.optional(z.unknown()),
});
const gpuCeilings = z.object({
  bytesPerSecond: z.number().positive(),
  flopsPerSecond: z.number().positive(),
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

/** The planned GPU, as far as a report may have been made on it. */
type PlannedGpu = Pick<Gpu, "id" | "bandwidthGBs" | "bf16Tflops">;

/** h200 of h200-sxm, h100 of h100-80gb-hbm3. */
const family = (name: string) => name.split("-")[0];

/**
 * What fractions of a report's ceilings are of `gpu`'s published peaks: measured over published where the report was made on such a
 * GPU, else 1.
 */
function peaksOf({ machine, ceilings }: z.infer<typeof reportFields>, gpu: PlannedGpu): Efficiency | null {
  const measured = gpuCeilings.safeParse(ceilings);
  if (!measured.success || family(machine.slug) !== family(gpu.id)) return null;
  return {
    memory: measured.data.bytesPerSecond / (gpu.bandwidthGBs * 1e9),
    compute: measured.data.flopsPerSecond / (gpu.bf16Tflops * 1e12),
  };
}

type CaseResult = z.infer<typeof resultFields>;

/** The half of the cases that take longest: a step of a served batch is long, and short calls are bound by their start. */
function longHalf(results: readonly CaseResult[]): readonly CaseResult[] {
  const timeOf = ({ coldMicroseconds, milliseconds = 0 }: CaseResult) =>
    coldMicroseconds ?? 1e3 * milliseconds;
  const least = middle(results.map(timeOf));
  return results.filter((result) => timeOf(result) >= least);
}

function parseReport(report: unknown, file: string, version: string): z.infer<typeof reportFields> {
  const parsed = reportFields.safeParse(report);
  if (!parsed.success) {
    const field = parsed.error.issues[0]?.path.join(".") || "its content";
    throw new UserError(
      `${file} is no report of flashmla bench kernel (${field} is not what it should be); make one with --out.`,
    );
  }
  const { flashmla } = parsed.data.versions;
  if (flashmla === version) return parsed.data;
  throw new UserError(
    `${file} was measured with flashmla ${flashmla} and this is ${version}; measure it again.`,
  );
}

/**
 * The efficiencies that `report`, the parsed JSON of the bench file called `file`, measured: the median fraction of the ceiling
 * over the longer half of the memory-bound and of the compute-bound cases of attention and of what reads weights, at most
 * 1; a report made on the GPU that is planned for gives fractions of its published peaks. `assumed` stays where a file has no
 * such case. Throws UserError for a file that is no report of `flashmla bench kernel`, or one of another version than `version`.
 */
export function calibrationOf(
  report: unknown,
  file: string,
  version: string,
  assumed: Deployment["efficiency"],
  gpu: PlannedGpu,
): Calibration {
  const parsed = parseReport(report, file, version);
  const peaks = peaksOf(parsed, gpu);
  const take = (pattern: RegExp, fallback: Efficiency) => {
    const of = (bound: keyof Efficiency) =>
      longHalf(parsed.results.filter((result) => result.bound === bound && pattern.test(result.name)));
    const found = { memory: of("memory"), compute: of("compute") };
    const share = (bound: keyof Efficiency) =>
      found[bound].length === 0
        ? fallback[bound]
        : Math.min(1, middle(found[bound].map(({ fraction }) => fraction)) * (peaks?.[bound] ?? 1));
    return {
      efficiency: { memory: share("memory"), compute: share("compute") },
      cases: { memory: found.memory.length, compute: found.compute.length },
    };
  };
  const attention = take(attentionCases, assumed.attention);
  const weights = take(weightCases, assumed.weights);
  const { machine, date } = parsed;
  const basis =
    peaks === null ? "fractions of that machine's own ceilings" : "fractions of the GPU's published peaks";
  return {
    efficiency: { attention: attention.efficiency, weights: weights.efficiency },
    cases: { attention: attention.cases, weights: weights.cases },
    origin: `${file}, ${machine.slug}, ${date.slice(0, 10)}, ${basis}`,
  };
}
