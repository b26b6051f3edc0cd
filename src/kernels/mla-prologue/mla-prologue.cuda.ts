import type { CudaEntry, DeviceBuffer, KernelSource, Launch } from "../../device/device.ts";
import { latentCachePages, latentDtypeCode } from "../common/latent-cache.ts";
import type { MlaPrologueArguments } from "./mla-prologue.ts";

/** TOKENS and CHANNELS of mla-prologue.cu. */
const TOKENS = 8;
const CHANNELS = 256;

const module = "mla-prologue.fatbin";

/** A kernel's name, labels and kinds without an entry. */
export type KernelShape = Pick<KernelSource, "name" | "buffers" | "scalars">;

/** The kernels' labels, which the CPU's have too. */
export interface PrologueShapes {
  readonly append: KernelShape;
  readonly rotate: KernelShape;
  readonly absorb: KernelShape;
}

function enqueueAppend(launch: Launch, args: MlaPrologueArguments, shape: KernelShape): void {
  const { latentWidth, ropeWidth, cache, positions, rotaryTable } = args;
  const entry: CudaEntry = {
    ...{ module, function: "mlaPrologueAppend", blockSize: 128 },
    sharedBytes: 4 * (latentWidth + ropeWidth),
  };
  launch(
    { ...shape, cuda: entry },
    args.maxRows,
    [args.latent, args.normWeight, positions, rotaryTable, args.slots, cache.buffer, args.rowCount],
    [
      latentWidth,
      ropeWidth,
      args.epsilon,
      args.rotary === "interleaved" ? 1 : 0,
      latentDtypeCode(cache.dtype),
      latentCachePages(cache, args) * cache.pageSize,
    ],
  );
}

/** Warps of mla-prologue.fused.cu, which share d_n in steps of 16, and latent channels of its blocks. */
const FUSED_WARPS = 4;
const FUSED_CHANNELS = 64;
const FUSED_STEPS = [1, 2, 3];
/** Tokens up to which W_UV is worth asking for in advance: attention over more drives it out again, or hides its reading. */
const PREFETCH_ROWS = 8;
/** Bytes of W_UV up to which that helps: 0.3 µs of 19 at 16 heads, where 128 heads' own reading suffers (36.4 µs for 35.2). */
const PREFETCH_BYTES = 8 * 2 ** 20;

const fusedScalars = [
  ...["maxRows", "heads", "nopeWidth", "ropeWidth", "valueWidth", "latentWidth", "interleaved"],
  ...["hasQueryScale", "cacheDtype", "cacheRows", "prefetches"],
].map((label) => [label, "i32"] as const);

/** Steps of the one-launch kernel, or null where it does not take the arguments. */
function fusedSteps(args: MlaPrologueArguments): number | null {
  const { phase, nopeWidth, latentWidth, kvB, qOutDtype = "f32" } = args;
  const steps = nopeWidth / (16 * FUSED_WARPS);
  const fits = FUSED_STEPS.includes(steps) && latentWidth % FUSED_CHANNELS === 0;
  return phase === "decode" && qOutDtype !== "f32" && kvB.dtype === qOutDtype && fits ? steps : null;
}

/** Everything in one launch: blocks that append, then those that absorb. */
function enqueueFused(launch: Launch, args: MlaPrologueArguments, steps: number): void {
  const { heads, nopeWidth, ropeWidth, valueWidth, latentWidth, maxRows, kvB, cache } = args;
  const { q, latent, normWeight, positions, slots, rotaryTable, qOut, rowCount } = args;
  const kernel: KernelSource = {
    name: "mla-prologue",
    buffers: [
      ...["q", "latent", "normWeight", "positions", "slots", "rotaryTable", "queryScale"],
      ...["kvB", "cache", "qOut", "rowCount"],
    ],
    scalars: [...fusedScalars, ["epsilon", "f32"]],
    cuda: {
      module: "mla-prologue.fused.fatbin",
      function: `mlaPrologueFused_${kvB.dtype}_${steps}`,
      blockSize: 32 * FUSED_WARPS,
      sharedBytes: 4 * (latentWidth + ropeWidth),
      overlaps: true,
    },
  };
  const prefetches = maxRows <= PREFETCH_ROWS && heads * valueWidth * latentWidth * 2 <= PREFETCH_BYTES;
  launch(
    kernel,
    maxRows + heads * (latentWidth / FUSED_CHANNELS),
    [
      ...[q, latent, normWeight, positions, slots, rotaryTable, args.queryScale ?? positions],
      ...[kvB.buffer, cache.buffer, qOut, rowCount],
    ],
    [
      ...[maxRows, heads, nopeWidth, ropeWidth, valueWidth, latentWidth],
      ...[args.rotary === "interleaved" ? 1 : 0, args.queryScale === null ? 0 : 1],
      ...[latentDtypeCode(cache.dtype), latentCachePages(cache, args) * cache.pageSize],
      ...[prefetches ? 1 : 0, args.epsilon],
    ],
  );
}

/** `mlaPrologue` on CUDA, its arguments checked; queries leave in `qOutDtype`. */
export function enqueueCuda(launch: Launch, args: MlaPrologueArguments, shapes: PrologueShapes): void {
  const steps = fusedSteps(args);
  if (steps !== null) {
    enqueueFused(launch, args, steps);
    return;
  }
  enqueueAppend(launch, args, shapes.append);
  const { heads, nopeWidth, ropeWidth, valueWidth, latentWidth, maxRows, kvB, qOutDtype = "f32" } = args;
  const interleaved = args.rotary === "interleaved" ? 1 : 0;
  const hasScale = args.queryScale === null ? 0 : 1;
  const inputs: DeviceBuffer[] = [
    args.q,
    args.positions,
    args.rotaryTable,
    args.queryScale ?? args.positions,
  ];
  if (args.phase === "prefill") {
    const entry = { module, function: `mlaPrologueRotate_${qOutDtype}`, blockSize: 256 };
    const scalars = [heads, nopeWidth, ropeWidth, interleaved, hasScale];
    launch({ ...shapes.rotate, cuda: entry }, maxRows, [...inputs, args.qOut, args.rowCount], scalars);
    return;
  }
  const blocks = Math.ceil(maxRows / TOKENS);
  const entry: CudaEntry = {
    ...{ module, function: `mlaPrologueAbsorb_${kvB.dtype}_${qOutDtype}`, blockSize: CHANNELS / 2 },
    sharedBytes: 4 * TOKENS * nopeWidth,
  };
  launch(
    { ...shapes.absorb, cuda: entry },
    blocks * heads * Math.ceil(latentWidth / CHANNELS),
    [...inputs, kvB.buffer, args.qOut, args.rowCount],
    [heads, nopeWidth, ropeWidth, valueWidth, latentWidth, interleaved, hasScale, 0, blocks],
  );
}
