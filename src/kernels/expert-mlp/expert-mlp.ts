import { checkFinite, checkInteger, checkOneOf } from "../../base/checks.ts";
import { ceilDivide } from "../../base/integers.ts";
import type { DeviceBuffer, Launch } from "../../device/device.ts";
import type { CudaProjection } from "../common/projection.cuda.ts";
import { ITEM_OUTPUTS } from "../common/projection.ts";
import { checkBytes, checkWeight, dtypeCode, type WeightMatrix, weightBytes } from "../common/weight.ts";
import { enqueueExpertsCuda } from "./expert-mlp.cuda.ts";
import { enqueueExpertProducts } from "./expert-mlp.webgpu.ts";
import { planBytesCuda } from "./expert-units.cuda.ts";
import { combineKernel, downKernel, gateUpKernel, planKernel } from "./stages.ts";

/** The gate and up projections of all experts, stacked: each a matrix, or one with an expert's gate before its up. */
export type ExpertGateUp =
  | {
      readonly layout: "separate";
      /** [experts · intermediate, hidden]. */
      readonly gate: WeightMatrix;
      /** [experts · intermediate, hidden], of the dtype of `gate`. */
      readonly up: WeightMatrix;
    }
  | {
      readonly layout: "fused";
      /** [experts · 2 · intermediate, hidden]. */
      readonly gateUp: WeightMatrix;
    };

/** What the sizes of one call follow from. */
export interface ExpertMlpShape {
  readonly maxRows: number;
  readonly experts: number;
  readonly perToken: number;
  /** A multiple of 8. */
  readonly hidden: number;
  /** Width of one expert: a multiple of 8. */
  readonly intermediate: number;
}

/** One record per launch of `expertMlp`. */
export interface ExpertMlpArguments extends ExpertMlpShape, Pick<CudaProjection, "norm" | "rounded"> {
  /** f32 [maxRows, hidden]. */
  readonly x: DeviceBuffer;
  /** i32 [maxRows, perToken], distinct within a row; an id that is no expert's counts for nothing. */
  readonly expertIds: DeviceBuffer;
  /** f32 [maxRows, perToken]. */
  readonly expertWeights: DeviceBuffer;
  readonly gateUp: ExpertGateUp;
  /** [experts · hidden, intermediate]. */
  readonly down: WeightMatrix;
  /** f32 [maxRows, hidden]; not `x`. */
  readonly out: DeviceBuffer;
  /** Whether `out` is replaced or added to. */
  readonly mode: "store" | "accumulate";
  /** Multiplies the result; default 1. */
  readonly scale?: number;
  /** At least `expertMlpWorkspaceBytes`. */
  readonly workspace: DeviceBuffer;
  /** i32 [1]: rows in use; later rows are neither read nor written. */
  readonly rowCount: DeviceBuffer;
}

const align = (bytes: number) => ceilDivide(bytes, 256) * 256;

function workspaceParts(shape: ExpertMlpShape): { plan: number; inner: number; values: number } {
  const pairs = shape.maxRows * shape.perToken;
  return {
    plan: align(Math.max((shape.experts + 1 + pairs) * 4, planBytesCuda(shape))),
    inner: align(pairs * shape.intermediate * 4),
    values: align(pairs * shape.hidden * 4),
  };
}

/** Bytes of the workspace: pairs sorted by expert, then f32 [pairs, intermediate] and [pairs, hidden]. */
export function expertMlpWorkspaceBytes(shape: ExpertMlpShape): number {
  const { plan, inner, values } = workspaceParts(shape);
  return plan + inner + values;
}

/**
 * out = (or +=) scale · Σᵢ expertWeights[i] · down·(silu(gate·x) · (up·x)) over a row's `perToken` experts, in their
 * order: four launches. An expert's weights are read once per call; a row's bits do not depend on the others. Throws
 * RangeError for shapes that do not fit each other or the buffers.
 */
export function expertMlp(launch: Launch, args: ExpertMlpArguments): void {
  const { experts, perToken, hidden, intermediate, x, expertIds, expertWeights, down, out, rowCount } = args;
  const { gate, up, expertRows } = splitGateUp(args);
  checkArguments(args);
  const parts = workspaceParts(args);
  const plan = args.workspace.slice(0, parts.plan);
  const inner = args.workspace.slice(parts.plan, parts.inner);
  const values = args.workspace.slice(parts.plan + parts.inner, parts.values);
  if (launch.target.kind === "cuda") {
    enqueueExpertsCuda(launch, args, { gate, up, expertRows, plan, inner, values });
    return;
  }
  launch(planKernel, 1, [expertIds, plan, rowCount], [experts, perToken]);
  if (launch.target.kind === "webgpu") {
    const sizes = { maxRows: args.maxRows, experts, perToken, hidden, intermediate };
    // A gate's up in the same matrix is found by its row: where it begins need not be where a binding may begin.
    const upPlace =
      args.gateUp.layout === "fused" ? { up: gate.buffer, upRow: intermediate } : { up, upRow: 0 };
    enqueueExpertProducts(launch, { ...sizes, ...upPlace, x, plan, inner, values, gate, expertRows, down });
  } else {
    enqueueProducts(launch, args, { plan, inner, values });
  }
  launch(
    combineKernel,
    args.maxRows,
    [values, expertIds, expertWeights, out, rowCount],
    [hidden, perToken, experts, args.mode === "accumulate" ? 1 : 0, args.scale ?? 1],
  );
}

/** Both products of every pair on the CPU. */
function enqueueProducts(
  launch: Launch,
  args: ExpertMlpArguments,
  { plan, inner, values }: Record<"plan" | "inner" | "values", DeviceBuffer>,
): void {
  const { experts, perToken, hidden, intermediate, x, down } = args;
  const { gate, up, expertRows } = splitGateUp(args);
  launch(
    gateUpKernel,
    ceilDivide(intermediate, ITEM_OUTPUTS) * experts,
    [x, gate.buffer, up, plan, inner],
    [hidden, intermediate, dtypeCode[gate.dtype], experts, perToken, expertRows],
  );
  launch(
    downKernel,
    ceilDivide(hidden, ITEM_OUTPUTS) * experts,
    [inner, down.buffer, plan, values],
    [intermediate, hidden, dtypeCode[down.dtype], experts],
  );
}

function checkShape(name: string, weight: WeightMatrix, rows: number, columns: number): void {
  checkWeight(name, weight);
  if (weight.rows === rows && weight.columns === columns) return;
  throw new RangeError(
    `${name}: expected the shape [${rows}, ${columns}], got [${weight.rows}, ${weight.columns}]`,
  );
}

/** The first gate's matrix, the first up's buffer, and the weight rows from one expert to the next. */
function splitGateUp({ gateUp, experts, intermediate, hidden }: ExpertMlpArguments) {
  checkInteger("experts", experts, { min: 1, max: 4096 });
  const rows = experts * intermediate;
  if (gateUp.layout === "separate") {
    const { gate, up } = gateUp;
    checkShape("gate", gate, rows, hidden);
    checkShape("up", up, rows, hidden);
    checkOneOf("up.dtype", up.dtype, [gate.dtype]);
    return { gate, up: up.buffer, expertRows: intermediate };
  }
  const gate = gateUp.gateUp;
  checkShape("gateUp", gate, 2 * rows, hidden);
  const offset = weightBytes({ ...gate, rows: intermediate });
  const up = gate.buffer.slice(offset, weightBytes(gate) - offset);
  return { gate, up, expertRows: 2 * intermediate };
}

function checkArguments(args: ExpertMlpArguments): void {
  const { maxRows, experts, perToken, hidden, intermediate } = args;
  checkInteger("maxRows", maxRows, { min: 1 });
  checkInteger("perToken", perToken, { min: 1, max: experts });
  checkShape("down", args.down, experts * hidden, intermediate);
  checkOneOf("mode", args.mode, ["store", "accumulate"]);
  checkFinite("scale", args.scale ?? 1);
  checkBytes("x", args.x, maxRows * hidden * 4);
  checkBytes("expertIds", args.expertIds, maxRows * perToken * 4);
  checkBytes("expertWeights", args.expertWeights, maxRows * perToken * 4);
  checkBytes("out", args.out, maxRows * hidden * 4);
  checkBytes("workspace", args.workspace, expertMlpWorkspaceBytes(args));
}

/** FLOPs and bytes of one call over `rows` rows that choose `active` experts in all, weights of `weightSize` bytes. */
export function expertMlpCost(
  rows: number,
  active: number,
  weightSize: number,
  shape: Omit<ExpertMlpShape, "maxRows">,
): { flops: number; bytes: number } {
  const { perToken, hidden, intermediate } = shape;
  const pairs = rows * perToken;
  const activations = (2 * rows * hidden + 2 * pairs * (hidden + intermediate)) * 4;
  return {
    flops: 6 * pairs * hidden * intermediate,
    bytes: 3 * active * hidden * intermediate * weightSize + activations,
  };
}
