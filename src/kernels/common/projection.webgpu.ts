import { ceilDivide } from "../../base/integers.ts";
import type { DeviceBuffer, KernelSource, Launch, ScalarKind } from "../../device/device.ts";
import fewRows from "./projection.few-rows.wgsl.ts";
import manyRows from "./projection.many-rows.wgsl.ts";
import { dtypeCode, type WeightMatrix, weightBytes } from "./weight.ts";

/** Outputs of a workgroup, as the WGSL has them. */
const OUTPUTS = { few: 4, many: 64 } as const;
/** Up to this many rows the weights are read once for all of them, by the kernel that reads fastest. */
const FEW_ROWS = 8;
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

function sourceOf(projection: Projection): KernelSource {
  const { name, first, second, bias, maxRows, experts } = projection;
  const isFew = maxRows <= FEW_ROWS;
  return {
    name: `${name}.${isFew ? "few" : "many"}-rows`,
    buffers: ["x", "first", "second", "out", "rows"],
    scalars: scalarsOf(experts !== undefined),
    webgpu: {
      code: isFew ? fewRows : manyRows,
      constants: {
        GATED: second !== undefined,
        BIASED: bias !== undefined,
        ACCUMULATE: projection.accumulate,
        EXPERTS: experts !== undefined,
        X_VECTORS: projection.xStride % 4 === 0,
        FIRST_DTYPE: dtypeCode[first.dtype],
        SECOND_DTYPE: dtypeCode[(second ?? first).dtype],
        ...(isFew ? { ROWS: powerOfTwo(maxRows) } : {}),
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
  const { first, second, experts } = projection;
  const limit = launch.target.limits.webgpu!.bindingBytes;
  const unit = experts === undefined ? 1 : experts.expertRows;
  const bytesOf = (weight: WeightMatrix) => weightBytes({ ...weight, rows: unit });
  const bytes = Math.max(bytesOf(first), second === undefined ? 0 : bytesOf(second));
  for (const run of bindingRuns(projection.name, experts?.experts ?? first.rows, bytes, limit)) {
    launchRun(launch, projection, run);
  }
}

/** One launch: outputs, or experts, from `from` on. */
function launchRun(launch: Launch, projection: Projection, [from, count]: [number, number]): void {
  const { x, first, second, bias, out, rows, maxRows, experts, xStride, scale } = projection;
  const outputs = experts === undefined ? count : first.rows;
  const isFew = maxRows <= FEW_ROWS;
  const panels = ceilDivide(outputs, isFew ? OUTPUTS.few : OUTPUTS.many);
  const others = experts === undefined ? (isFew ? 1 : ceilDivide(maxRows, TILE)) : count;
  const part = (weight: WeightMatrix) => {
    const unit = weightBytes({ ...weight, rows: experts?.expertRows ?? 1 });
    return weight.buffer.slice(from * unit, Math.min(count * unit, weight.buffer.bytes - from * unit));
  };
  const buffers = [x, part(first), second === undefined ? (bias ?? rows) : part(second), out, rows];
  const scalars = [first.columns, first.rows, experts === undefined ? from : 0, outputs, xStride, scale];
  if (experts !== undefined)
    scalars.push(count, from, experts.experts, experts.share, experts.expertRows, experts.secondRow);
  launch(sourceOf(projection), panels * others, buffers, scalars);
}
