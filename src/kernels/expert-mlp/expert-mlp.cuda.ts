import type { CudaEntry, DeviceBuffer, KernelSource, Launch, ScalarKind } from "../../device/device.ts";
import { streamedEntry, streamedGrid } from "../common/streamed-products.cuda.ts";
import type { WeightMatrix } from "../common/weight.ts";
import type { ExpertMlpArguments, ExpertMlpShape } from "./expert-mlp.ts";

/** UNIT of expert-mlp.cu. */
const UNIT = 16;
/** Rows up to which every pair reads its expert's weights for itself; more are sorted by expert first. */
const PAIRED_ROWS = 16;

const module = "expert-mlp.fatbin";

/** Units at most: every expert's last one may be short. */
const mostUnits = ({ maxRows, perToken, experts }: ExpertMlpShape) =>
  Math.min(maxRows * perToken, experts + Math.ceil((maxRows * perToken) / UNIT));

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

const source = (
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

function enqueuePairs(launch: Launch, args: ExpertMlpArguments, parts: ExpertParts): void {
  const {
    experts,
    perToken,
    hidden,
    intermediate,
    x,
    expertIds,
    expertWeights,
    down,
    out,
    rowCount,
    maxRows,
  } = args;
  const { gate, up, inner, expertRows } = parts;
  const { norm } = args;
  const { limits } = launch.target;
  const entry = (name: string, dtype: WeightMatrix["dtype"], wide: 1 | 2) =>
    streamedEntry(module, `expertMlp${name}_${dtype}`, { dtype, parts: wide, columns: 1 }, limits);
  const gateUp = source(
    "gate-up",
    ["x", "norm", "gate", "up", "expertIds", "expertWeights", "out", "rowCount"],
    ["inputs", "outputs", "experts", "perToken", "expertRows", "isNormed"],
    entry("PairGateUp", gate.dtype, 2),
    "epsilon",
  );
  launch(
    gateUp,
    streamedGrid(maxRows * perToken * Math.ceil(intermediate / 16), limits),
    [x, norm?.weight ?? x, gate.buffer, up, expertIds, expertWeights, inner, rowCount],
    [hidden, intermediate, experts, perToken, expertRows, norm === undefined ? 0 : 1, norm?.epsilon ?? 0],
  );
  const downKernel = source(
    "down",
    ["x", "down", "expertIds", "out", "rowCount"],
    ["inputs", "outputs", "experts", "perToken", "accumulates"],
    entry("RowDown", down.dtype, 1),
    "scale",
  );
  launch(
    downKernel,
    streamedGrid(maxRows * Math.ceil(hidden / 16), limits),
    [inner, down.buffer, expertIds, out, rowCount],
    [intermediate, hidden, experts, perToken, args.mode === "accumulate" ? 1 : 0, args.scale ?? 1],
  );
}

function enqueueUnits(launch: Launch, args: ExpertMlpArguments, parts: ExpertParts): void {
  const { experts, perToken, hidden, intermediate, x, expertIds, expertWeights, down, out, rowCount } = args;
  const { gate, up, plan, inner, values, expertRows } = parts;
  const { limits } = launch.target;
  const most = mostUnits(args);
  const entry = (name: string, dtype: WeightMatrix["dtype"], wide: 1 | 2) =>
    streamedEntry(module, `expertMlp${name}_${dtype}`, { dtype, parts: wide, columns: 2 }, limits);
  const sorting = {
    module,
    function: "expertMlpPlan",
    blockSize: 1024,
    sharedBytes: 4 * (2 * experts + 1),
    overlaps: true,
  };
  launch(
    source("plan", ["expertIds", "plan", "rowCount"], ["experts", "perToken", "most"], sorting),
    1,
    [expertIds, plan, rowCount],
    [experts, perToken, most],
  );
  launch(
    source(
      "gate-up",
      ["x", "gate", "up", "plan", "out"],
      ["inputs", "outputs", "perToken", "expertRows", "most"],
      entry("UnitGateUp", gate.dtype, 2),
    ),
    streamedGrid(most * Math.ceil(intermediate / 16), limits),
    [x, gate.buffer, up, plan, inner],
    [hidden, intermediate, perToken, expertRows, most],
  );
  launch(
    source(
      "down",
      ["x", "down", "plan", "out"],
      ["inputs", "outputs", "most"],
      entry("UnitDown", down.dtype, 1),
    ),
    streamedGrid(most * Math.ceil(hidden / 16), limits),
    [inner, down.buffer, plan, values],
    [intermediate, hidden, most],
  );
  const combine = { module, function: "expertMlpCombine", blockSize: 256, overlaps: true };
  launch(
    source(
      "combine",
      ["values", "expertIds", "expertWeights", "out", "rowCount"],
      ["width", "perToken", "experts", "accumulates"],
      combine,
      "scale",
    ),
    args.maxRows,
    [values, expertIds, expertWeights, out, rowCount],
    [hidden, perToken, experts, args.mode === "accumulate" ? 1 : 0, args.scale ?? 1],
  );
}

/** `expertMlp` on CUDA, its arguments checked: two launches for few rows, four for many. */
export function enqueueExpertsCuda(launch: Launch, args: ExpertMlpArguments, parts: ExpertParts): void {
  if (args.maxRows <= PAIRED_ROWS) {
    enqueuePairs(launch, args, parts);
    return;
  }
  if (args.norm !== undefined) {
    throw new RangeError(`norm: expected at most ${PAIRED_ROWS} rows, got ${args.maxRows}`);
  }
  enqueueUnits(launch, args, parts);
}
