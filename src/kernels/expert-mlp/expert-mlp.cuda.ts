import type { Launch } from "../../device/device.ts";
import { enqueueChainExperts, fitsOneRow, runsInChain } from "../common/product-chain.cuda.ts";
import { multipliesRounded } from "../common/projection.cuda.ts";
import { streamedEntry, streamedGrid } from "../common/streamed-products.cuda.ts";
import type { WeightMatrix } from "../common/weight.ts";
import { enqueueGrouped } from "./expert-mlp.grouped.ts";
import type { ExpertMlpArguments } from "./expert-mlp.ts";
import { type ExpertParts, enqueueCombine, enqueuePlan, source, UNIT } from "./expert-units.cuda.ts";

/** Rows up to which every pair reads its expert's weights for itself; more are sorted by expert first. */
const PAIRED_ROWS = 16;

const module = "expert-mlp.fatbin";

/** Experts of one row as parts of a chain, where they can be; says whether they were enqueued. */
function enqueueInChain(launch: Launch, args: ExpertMlpArguments, parts: ExpertParts): boolean {
  const { maxRows, perToken, down, mode, scale = 1, expertIds: ids } = args;
  const fits = fitsOneRow(perToken * down.columns) && perToken <= 32;
  if (!fits || !runsInChain(launch, [parts.gate, down], maxRows)) return false;
  enqueueChainExperts(launch, { ...args, ...parts, down, ids, mode, scale });
  return true;
}

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
  const { perToken, hidden, intermediate, x, down } = args;
  const { gate, up, plan, inner, values, expertRows } = parts;
  const { limits } = launch.target;
  const entry = (name: string, dtype: WeightMatrix["dtype"], wide: 1 | 2) =>
    streamedEntry(module, `expertMlp${name}_${dtype}`, { dtype, parts: wide, columns: 2 }, limits);
  const most = enqueuePlan(launch, args, plan, UNIT);
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
  const downEntry = entry("UnitDown", down.dtype, 1);
  launch(
    source("down", ["x", "down", "plan", "out"], ["inputs", "outputs", "most"], downEntry),
    streamedGrid(most * Math.ceil(hidden / 16), limits),
    [inner, down.buffer, plan, values],
    [intermediate, hidden, most],
  );
  enqueueCombine(launch, args, values);
}

/** `expertMlp` on CUDA, its arguments checked: two launches for few rows, four for many. */
export function enqueueExpertsCuda(launch: Launch, args: ExpertMlpArguments, parts: ExpertParts): void {
  if (enqueueInChain(launch, args, parts)) return;
  if (args.maxRows <= PAIRED_ROWS) {
    enqueuePairs(launch, args, parts);
    return;
  }
  if (args.norm !== undefined) {
    throw new RangeError(`norm: expected at most ${PAIRED_ROWS} rows, got ${args.maxRows}`);
  }
  const { rounded } = args;
  const isRounded = [parts.gate, args.down].every((one) =>
    multipliesRounded(launch.target, one, args.maxRows),
  );
  if (rounded !== undefined && isRounded) enqueueGrouped(launch, args, parts, rounded);
  else enqueueUnits(launch, args, parts);
}
