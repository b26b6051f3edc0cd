import { ceilDivide } from "../../base/integers.ts";
import type { DeviceBuffer, KernelSource, Launch, ScalarKind } from "../../device/device.ts";
import fewRows from "./projection.few-rows.wgsl.ts";
import manyRows from "./projection.many-rows.wgsl.ts";
import { fixedSubgroup } from "./subgroups.webgpu.ts";
import { dtypeCode, type WeightMatrix, weightBytes } from "./weight.ts";

/** Up to this many rows the weights are read once for all of them, by the kernel that reads fastest. */
const FEW_ROWS = 8;
/** Up to this many rows a norm on the way costs less than a launch of its own. */
const NORMED_ROWS = 4;
/** Invocations of a workgroup of that kernel, and lanes that share an output where no subgroups do. */
const WORKGROUP = 128;
const LANES = 32;
/** Outputs from which lanes have two of them when there are 4 rows: enough workgroups are left. */
const MANY_OUTPUTS = 4096;
/** Outputs of a workgroup of the other kernel. */
const PANEL = 64;
/** Rows of x and out that a workgroup of the other kernel takes. */
const TILE = 64;

/** Matrices of experts, stacked. */
export interface StackedExperts {
  readonly experts: number;
  /** Weight rows from one expert to the next. */
  readonly expertRows: number;
  /** Pairs that read the same row of x. */
  readonly share: number;
  /** First row of `second` in its buffer. */
  readonly secondRow: number;
}

/** One product over weights of any size: x · firstᵀ, or silu(x · firstᵀ) · (x · secondᵀ). */
export interface Projection {
  readonly name: string;
  readonly x: DeviceBuffer;
  readonly xStride: number;
  /** Of one expert where there are several. */
  readonly first: WeightMatrix;
  readonly second?: WeightMatrix;
  readonly bias?: DeviceBuffer | undefined;
  readonly out: DeviceBuffer;
  readonly accumulate: boolean;
  readonly scale: number;
  /** i32 [1], or the plan of `expertMlp`. */
  readonly rows: DeviceBuffer;
  readonly maxRows: number;
  readonly experts?: StackedExperts;
  /** Each row of x is multiplied by `weight` and divided by its root mean square; see {@link normsOnTheWay}. */
  readonly norm?: { readonly weight: DeviceBuffer; readonly epsilon: number } | undefined;
  /** A second matrix over the same rows, of the inputs and type of `first`; without experts, bias, scale or a gate. */
  readonly pair?: { readonly weight: WeightMatrix; readonly out: DeviceBuffer } | undefined;
}

/** Whether a projection of that many rows takes `norm` and `pair`. */
export function normsOnTheWay(target: Launch["target"], maxRows: number): boolean {
  return target.kind === "webgpu" && maxRows <= NORMED_ROWS;
}

const scalarsOf = (hasExperts: boolean): (readonly [string, ScalarKind])[] => [
  ...["inputs", "outputs", "begin", "count", "xStride"].map((name) => [name, "i32"] as const),
  ["scale", "f32"],
  ...(hasExperts ? ["experts", "firstExpert", "allExperts", "share", "expertRows", "secondRow"] : []).map(
    (name) => [name, "i32"] as const,
  ),
];

/** The smallest power of two from `rows` on. */
const powerOfTwo = (rows: number) => 2 ** Math.ceil(Math.log2(rows));

/** Words of 8 weights that a lane of that kernel has under way, half as many where it has two matrices, two outputs or several rows. */
const WORDS_UNDER_WAY = 8;

/** Invocations that a large GPU has at a time. */
const ENOUGH_LANES = 2 ** 18;

/** Lanes that share an output: two subgroups where there is room for them, so that all loads are under way at once (docs/log.md). */
function lanesOfOutput({ rows, columns }: WeightMatrix, subgroup: number): number {
  const lanes = 2 * subgroup;
  const isEven = (columns / 8) % lanes === 0;
  return isEven && lanes <= WORKGROUP && rows * lanes <= ENOUGH_LANES ? lanes : subgroup;
}

/** How the outputs of the kernel for few rows lie on its lanes, and the words of a row on a lane's loads. */
function lanesOf({ limits }: Launch["target"], projection: Projection) {
  const subgroup = fixedSubgroup(limits);
  const SUBGROUPS = subgroup > 0;
  const lanes = SUBGROUPS ? lanesOfOutput(projection.first, subgroup) : LANES;
  const ROWS = powerOfTwo(projection.maxRows);
  const isAlone = projection.second === undefined && projection.experts === undefined;
  const isWide = ROWS === 8 || (ROWS === 4 && projection.first.rows >= MANY_OUTPUTS);
  const PER_LANE = isAlone && isWide ? 2 : 1;
  const words = projection.first.columns / 8;
  const isDouble = projection.second !== undefined || PER_LANE === 2 || ROWS > 2;
  const most = isDouble ? WORDS_UNDER_WAY / 2 : WORDS_UNDER_WAY;
  const DEPTH = ceilDivide(ceilDivide(words, lanes), ceilDivide(words, lanes * most));
  const UNEVEN = words % (DEPTH * lanes) !== 0;
  const PARTS = SUBGROUPS ? lanes / subgroup : lanes;
  return { SUBGROUPS, LANES: lanes, PARTS, ROWS, PER_LANE, DEPTH, UNEVEN };
}

/** The constants that the kernel for few rows has beside the other's. */
function fewRowsConstants(target: Launch["target"], projection: Projection) {
  const { norm, pair, maxRows } = projection;
  const isPair = pair !== undefined;
  const own = { NORMED: norm !== undefined, PAIRED: isPair, MATRICES: isPair ? 2 : 1, MOST: maxRows };
  return { ...lanesOf(target, projection), ...own };
}

function sourceOf(target: Launch["target"], projection: Projection): KernelSource {
  const { name, first, second, bias, maxRows, experts, pair } = projection;
  const isFew = maxRows <= FEW_ROWS;
  const few = isFew ? fewRowsConstants(target, projection) : null;
  const own: (readonly [string, ScalarKind])[] = [
    ["epsilon", "f32"],
    ["secondCount", "i32"],
  ];
  return {
    name: `${name}.${isFew ? "few" : "many"}-rows`,
    buffers: ["x", "first", "second", "out", "rows", ...(isFew ? ["norm", "out2"] : [])],
    scalars: [...scalarsOf(experts !== undefined), ...(isFew ? own : [])],
    webgpu: {
      code: isFew ? fewRows : manyRows,
      enables: few?.SUBGROUPS ? ["subgroups"] : [],
      constants: {
        GATED: second !== undefined,
        SECOND: second !== undefined || pair !== undefined,
        BIASED: bias !== undefined,
        ACCUMULATE: projection.accumulate,
        ACCUMULATE_EARLY: projection.accumulate && maxRows === 1 && experts === undefined,
        EXPERTS: experts !== undefined,
        X_VECTORS: projection.xStride % 4 === 0,
        FIRST_DTYPE: dtypeCode[first.dtype],
        SECOND_DTYPE: dtypeCode[(second ?? first).dtype],
        ...few,
      },
    },
  };
}

const greatestCommonDivisor = (a: number, b: number): number =>
  b === 0 ? a : greatestCommonDivisor(b, a % b);

/**
 * Cuts `count` things of `bytes` bytes each into runs that a binding of `limit` bytes can hold and that begin at multiples of 256.
 * Throws RangeError, with the numbers, where not even the smallest run fits.
 */
export function bindingRuns(
  name: string,
  count: number,
  bytes: number,
  limit: number,
): [from: number, count: number][] {
  const step = 256 / greatestCommonDivisor(256, bytes);
  const most = Math.floor(limit / bytes / step) * step;
  if (count * bytes <= limit) return [[0, count]];
  if (most < 1) {
    throw new RangeError(
      `${name}: ${step * bytes} bytes have to be bound at once, and this adapter binds ${limit} at most`,
    );
  }
  return Array.from({ length: ceilDivide(count, most) }, (_, i) => [
    i * most,
    Math.min(most, count - i * most),
  ]);
}

/** Enqueues a product whose arguments are checked, in as many launches as the adapter's binding limit asks for. */
export function enqueueProjection(launch: Launch, projection: Projection): void {
  const { first, second, experts, pair, norm, maxRows } = projection;
  const limit = launch.target.limits.webgpu!.bindingBytes;
  if (norm !== undefined && !normsOnTheWay(launch.target, maxRows)) {
    throw new RangeError(`norm: expected at most ${NORMED_ROWS} rows, got ${maxRows}`);
  }
  if (pair !== undefined && Math.max(weightBytes(first), weightBytes(pair.weight)) > limit) {
    const { pair: _, ...alone } = projection;
    enqueueProjection(launch, alone);
    enqueueProjection(launch, { ...alone, first: pair.weight, out: pair.out });
    return;
  }
  const unit = experts === undefined ? 1 : experts.expertRows;
  const bytesOf = (weight: WeightMatrix) => weightBytes({ ...weight, rows: unit });
  const bytes = Math.max(bytesOf(first), second === undefined ? 0 : bytesOf(second));
  for (const run of bindingRuns(projection.name, experts?.experts ?? first.rows, bytes, limit)) {
    launchRun(launch, projection, run);
  }
}

/** One launch: outputs, or experts, from `from` on. */
function launchRun(launch: Launch, projection: Projection, [from, count]: [number, number]): void {
  const { x, first, second, bias, out, rows, maxRows, experts, xStride, scale, norm, pair } = projection;
  const source = sourceOf(launch.target, projection);
  const outputs = experts === undefined ? count : first.rows;
  const isFew = maxRows <= FEW_ROWS;
  const part = (weight: WeightMatrix) => {
    const unit = weightBytes({ ...weight, rows: experts?.expertRows ?? 1 });
    return weight.buffer.slice(from * unit, Math.min(count * unit, weight.buffer.bytes - from * unit));
  };
  const other = second === undefined ? (pair?.weight.buffer ?? bias ?? rows) : part(second);
  const buffers = [x, part(first), other, out, rows];
  const scalars = [first.columns, first.rows, experts === undefined ? from : 0, outputs, xStride, scale];
  if (experts !== undefined)
    scalars.push(count, from, experts.experts, experts.share, experts.expertRows, experts.secondRow);
  if (!isFew) {
    const blocks = experts === undefined ? ceilDivide(maxRows, TILE) : count;
    launch(source, ceilDivide(outputs, PANEL) * blocks, buffers, scalars);
    return;
  }
  const { LANES: lanes, PER_LANE } = lanesOf(launch.target, projection);
  const tilesOf = (wanted: number) => ceilDivide(wanted, (WORKGROUP / lanes) * PER_LANE);
  const tiles = tilesOf(outputs) + tilesOf(pair?.weight.rows ?? 0);
  launch(
    source,
    tiles * (experts === undefined ? 1 : count),
    [...buffers, norm?.weight ?? rows, pair?.out ?? rows],
    [...scalars, norm?.epsilon ?? 0, pair?.weight.rows ?? 0],
  );
}
