import type { CudaEntry, DeviceBuffer, KernelSource, Launch } from "../../device/device.ts";
import type { WeightMatrix } from "./weight.ts";

/** Of product-chain.sm90.cu: parts of a launch, warps that multiply, stages of the ring and their bytes, everything else but x. */
const MOST_PARTS = 8;
const WARPS = 8;
const STAGES = 4;
const STAGE_BYTES = 16 * (2048 + 64);
const BOOKKEEPING = Math.ceil((36 * STAGES + 5232) / 16) * 16;
/** Inputs of a step of a warp; of a row at most, which lies in shared memory in three terms. */
const STEP = 64;
const MOST_INPUTS = 14 * 1024;
/** Bytes of weights from which a product runs in a chain: for fewer, meeting all blocks costs more than a launch. */
const LEAST_BYTES = 1 << 18;

/** What a part does; product-chain.sm90.cu has the same order. */
const kinds = ["plain", "gated", "experts-gated", "experts-down", "routing"] as const;
type Kind = (typeof kinds)[number];

/** A product of one row, or a gated pair of them. */
export interface ChainPart {
  readonly name: string;
  readonly kind: "plain" | "gated";
  /** f32 [inputs]. */
  readonly x: DeviceBuffer;
  readonly norm?: { readonly weight: DeviceBuffer; readonly epsilon: number } | undefined;
  readonly rowCount: DeviceBuffer;
  readonly first: WeightMatrix;
  readonly out: DeviceBuffer;
  /** plain: a second matrix over the same rows of x; gated: the ups, whose products go where those of the gates go. */
  readonly second?: WeightMatrix | undefined;
  readonly out2?: DeviceBuffer | undefined;
  readonly mode: "store" | "accumulate";
  readonly scale: number;
}

/** Whether products of that many rows with these matrices can be parts of a chain: one row, bf16, whole steps, not too small. */
export function runsInChain(
  { target }: Pick<Launch, "target">,
  weights: readonly WeightMatrix[],
  maxRows: number,
): boolean {
  const bytes = weights.reduce((sum, { rows, columns }) => sum + 2 * rows * columns, 0);
  const fits = ({ dtype, columns }: WeightMatrix) =>
    dtype === "bf16" && columns % STEP === 0 && columns <= MOST_INPUTS;
  return target.limits.features.has("sm_90") && maxRows === 1 && bytes >= LEAST_BYTES && weights.every(fits);
}

/** How CUDA starts a chain over a row of `inputs` inputs. */
function chainEntry(inputs: number): CudaEntry {
  return {
    ...{ module: "product-chain.sm90.cubin", function: "productChain", blockSize: (WARPS + 1) * 32 },
    sharedBytes: STAGES * STAGE_BYTES + BOOKKEEPING + 3 * 2 * inputs,
    ...{ overlaps: true, counters: MOST_PARTS + 1 },
    joins: { most: MOST_PARTS, reads: [0, 7, 8], writes: [5, 6], shares: [1, 2] },
  };
}

const source: Omit<KernelSource, "name"> = {
  buffers: ["x", "norm", "rowCount", "first", "second", "out", "out2", "ids", "expertWeights"],
  scalars: [
    ["inputs", "i32"],
    ["outputs", "i32"],
    ["outputs2", "i32"],
    ["kind", "i32"],
    ["accumulates", "i32"],
    ["isNormed", "i32"],
    ["experts", "i32"],
    ["perToken", "i32"],
    ["scale", "f32"],
    ["epsilon", "f32"],
  ],
};

type Buffers = Record<"x" | "norm" | "rowCount" | "first" | "second" | "out" | "out2", DeviceBuffer> &
  Partial<Record<"ids" | "expertWeights", DeviceBuffer>>;
type Scalars = Record<"inputs" | "outputs", number> &
  Partial<
    Record<
      "outputs2" | "accumulates" | "isNormed" | "experts" | "perToken" | "scale" | "epsilon",
      number | boolean
    >
  >;

function enqueue(
  launch: Launch,
  { name, kind }: { name: string; kind: Kind },
  buffers: Buffers,
  scalars: Scalars,
): void {
  const all: Record<string, number | boolean> = { ...scalars, kind: kinds.indexOf(kind) };
  const given: Record<string, DeviceBuffer> = buffers;
  const wide = kind === "experts-down" ? scalars.inputs * Number(scalars.perToken) : scalars.inputs;
  launch(
    { name, ...source, cuda: chainEntry(kind === "routing" ? 0 : wide) },
    launch.target.limits.computeUnits,
    source.buffers.map((label) => given[label] ?? buffers.rowCount),
    source.scalars.map(([label]) => Number(all[label] ?? 0)),
  );
}

/** Enqueues one part; those that follow each other become one launch. Where {@link runsInChain} says so, arguments checked. */
export function enqueueChainPart(launch: Launch, part: ChainPart): void {
  const { x, norm, rowCount, first, second, out, out2, mode, scale, kind } = part;
  enqueue(
    launch,
    part,
    {
      ...{ x, norm: norm?.weight ?? x, rowCount, first: first.buffer },
      ...{ second: (second ?? first).buffer, out, out2: out2 ?? out },
    },
    {
      ...{ inputs: first.columns, outputs: first.rows, accumulates: mode === "accumulate", scale },
      ...{ outputs2: kind === "plain" ? (second?.rows ?? 0) : 0 },
      ...{ isNormed: norm !== undefined, epsilon: norm?.epsilon ?? 0 },
    },
  );
}

/** The routed experts of one row: gates and ups, weighted, to `inner`, then the downs, added up, to `out`. */
export interface ChainExperts extends Pick<ChainPart, "x" | "norm" | "rowCount" | "out" | "mode" | "scale"> {
  readonly experts: number;
  readonly perToken: number;
  readonly intermediate: number;
  /** [experts · expertRows, hidden] each, an expert's first `intermediate` rows of `expertRows` in use. */
  readonly gate: WeightMatrix;
  readonly up: DeviceBuffer;
  readonly expertRows: number;
  /** [experts · hidden, intermediate]. */
  readonly down: WeightMatrix;
  readonly ids: DeviceBuffer;
  readonly expertWeights: DeviceBuffer;
  /** f32 [perToken, intermediate]. */
  readonly inner: DeviceBuffer;
}

/** Whether that many inputs fit where one row's lie. */
export const fitsOneRow = (inputs: number) => inputs <= MOST_INPUTS;

/** Enqueues experts as two parts. At most 32 of a row, where {@link runsInChain} and {@link fitsOneRow} say so. */
export function enqueueChainExperts(launch: Launch, args: ChainExperts): void {
  const { x, norm, rowCount, gate, up, down, inner, out, ids, expertWeights, experts, perToken } = args;
  const { intermediate, expertRows, mode, scale } = args;
  const chosen = { rowCount, ids, expertWeights };
  enqueue(
    launch,
    { name: "expert-mlp.gate-up", kind: "experts-gated" },
    { ...chosen, x, norm: norm?.weight ?? x, first: gate.buffer, second: up, out: inner, out2: inner },
    {
      ...{ inputs: gate.columns, outputs: intermediate, outputs2: expertRows, experts, perToken },
      ...{ isNormed: norm !== undefined, epsilon: norm?.epsilon ?? 0 },
    },
  );
  enqueue(
    launch,
    { name: "expert-mlp.down", kind: "experts-down" },
    { ...chosen, x: inner, norm: inner, first: down.buffer, second: down.buffer, out, out2: out },
    {
      ...{ inputs: intermediate, outputs: down.rows / experts, experts, perToken, scale },
      accumulates: mode === "accumulate",
    },
  );
}

/** One row's routing as a part: which experts, and how much of each. Codes are those of expert-routing.ts. */
export interface ChainRouting {
  readonly logits: DeviceBuffer;
  readonly bias: DeviceBuffer | null;
  readonly ids: DeviceBuffer;
  readonly weights: DeviceBuffer;
  readonly rowCount: DeviceBuffer;
  readonly router: Record<
    | "experts"
    | "perToken"
    | "scoring"
    | "selection"
    | "groups"
    | "groupsPerToken"
    | "normalise"
    | "scale"
    | "hasBias",
    number
  >;
}

/** Experts that routing as a part can choose among: its scores lie where sums do. */
const MOST_ROUTED = 256;

/** Whether routing can be a part, where the router's product is one. */
export function routesInChain(
  launch: Pick<Launch, "target">,
  router: WeightMatrix,
  maxRows: number,
): boolean {
  return router.rows <= MOST_ROUTED && runsInChain(launch, [router], maxRows);
}

/** Enqueues routing as a part. Where {@link routesInChain} says so. */
export function enqueueChainRouting(launch: Launch, args: ChainRouting): void {
  const { logits, bias, ids, weights, rowCount, router } = args;
  const buffers = { x: logits, norm: bias ?? logits, rowCount, first: logits, second: logits };
  enqueue(
    launch,
    { name: "expert-routing", kind: "routing" },
    { ...buffers, out: ids, out2: weights },
    {
      ...{ inputs: router.scoring, outputs: router.selection, outputs2: router.groups },
      ...{ experts: router.experts, perToken: router.perToken, accumulates: router.groupsPerToken },
      ...{ isNormed: router.hasBias, epsilon: router.normalise, scale: router.scale },
    },
  );
}
