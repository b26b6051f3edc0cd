import type { CudaEntry, DeviceBuffer, KernelSource, Launch, ScalarKind } from "../../device/device.ts";
import type { WeightMatrix } from "../common/weight.ts";
import type { ExpertMlpArguments, ExpertMlpShape } from "./expert-mlp.ts";

/** Pairs that meet an expert's weights at a time, in float32. */
export const UNIT = 16;
/** The same in bf16: PAIRS of expert-mlp.grouped.cu. */
export const GROUPED_UNIT = 64;

const module = "expert-mlp.fatbin";

/** Units at most: every expert's last one may be short. */
const mostUnits = ({ maxRows, perToken, experts }: ExpertMlpShape, unit = UNIT) =>
  Math.min(maxRows * perToken, experts + Math.ceil((maxRows * perToken) / unit));

/** Bytes of the sort's result: the number of units, their experts, firsts and counts, and the pairs. */
export function planBytesCuda(shape: ExpertMlpShape): number {
  return 4 * (1 + 3 * mostUnits(shape) + shape.maxRows * shape.perToken);
}

/** The parts of a call, checked and cut out of their buffers. */
export interface ExpertParts {
  readonly gate: WeightMatrix;
  readonly up: DeviceBuffer;
  /** Weight rows from one expert's gate to the next one's. */
  readonly expertRows: number;
  readonly plan: DeviceBuffer;
  /** f32 [pairs, intermediate]. */
  readonly inner: DeviceBuffer;
  /** f32 [pairs, hidden]. */
  readonly values: DeviceBuffer;
}

/** A stage: its buffers, its integers, and where it ends in a float, that. */
export const source = (
  name: string,
  buffers: readonly string[],
  integers: readonly string[],
  cuda: CudaEntry,
  float?: string,
): KernelSource => {
  const scalars = integers.map((label): readonly [string, ScalarKind] => [label, "i32"]);
  return {
    name: `expert-mlp.${name}`,
    buffers,
    scalars: float ? [...scalars, [float, "f32"]] : scalars,
    cuda,
  };
};

/** Sorts the pairs into units of at most `unit`; gives the number of units at most. */
export function enqueuePlan(
  launch: Launch,
  args: ExpertMlpArguments,
  plan: DeviceBuffer,
  unit: number,
): number {
  const { experts, perToken, expertIds, rowCount } = args;
  const most = mostUnits(args, unit);
  const sorting = {
    ...{ module, function: "expertMlpPlan", blockSize: 1024, overlaps: true },
    sharedBytes: 4 * (2 * experts + 1),
  };
  const labels = ["experts", "perToken", "most", "unitPairs"];
  launch(
    source("plan", ["expertIds", "plan", "rowCount"], labels, sorting),
    1,
    [expertIds, plan, rowCount],
    [experts, perToken, most, unit],
  );
  return most;
}

/** The weighted sum of each row's pairs. */
export function enqueueCombine(launch: Launch, args: ExpertMlpArguments, values: DeviceBuffer): void {
  const { experts, perToken, hidden, expertIds, expertWeights, out, rowCount } = args;
  const combine = { module, function: "expertMlpCombine", blockSize: 256, overlaps: true };
  const labels = ["width", "perToken", "experts", "accumulates"];
  launch(
    source("combine", ["values", "expertIds", "expertWeights", "out", "rowCount"], labels, combine, "scale"),
    args.maxRows,
    [values, expertIds, expertWeights, out, rowCount],
    [hidden, perToken, experts, args.mode === "accumulate" ? 1 : 0, args.scale ?? 1],
  );
}
