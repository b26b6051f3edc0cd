import type { CudaEntry, DeviceBuffer, DeviceLimits, KernelSource, Launch } from "../../device/device.ts";
import { latentCachePages, latentDtypeCode } from "../common/latent-cache.ts";
import { shareTokens, weightBoxes } from "../common/token-shares.cuda.ts";
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

/** Tokens up to which W_UV is worth asking for in advance: attention over more drives it out again, or hides its reading. */
const PREFETCH_ROWS = 8;
/** Bytes of W_UV up to which that helps: 0.3 µs of 19 at 16 heads, where 128 heads' own reading suffers (36.4 µs for 35.2). */
const PREFETCH_BYTES = 8 * 2 ** 20;

/** Whether the prologue calls the epilogue's weights into the second-level cache. */
function prefetches({ maxRows, heads, valueWidth, latentWidth }: MlaPrologueArguments): boolean {
  return maxRows <= PREFETCH_ROWS && heads * valueWidth * latentWidth * 2 <= PREFETCH_BYTES;
}

/** Warps of mla-prologue.fused.cu, which share d_n in steps of 16, and latent channels of its blocks. */
const FUSED_WARPS = 4;
const FUSED_CHANNELS = 64;
const FUSED_STEPS = [1, 2, 3];

/** Of mla-prologue.sm90.cu: latent channels of a block and bytes of a box; values of an entry that a block's threads can hold. */
const HOPPER_CHANNELS = 256;
const BOX_BYTES = 64 * 128;
const HOPPER_LATENT = 640;

const fusedBuffers = [
  ...["q", "latent", "normWeight", "positions", "slots", "rotaryTable", "queryScale"],
  ...["kvB", "cache", "qOut", "rowCount"],
];
const fusedScalars = [
  ...["maxRows", "heads", "nopeWidth", "ropeWidth", "valueWidth", "latentWidth", "interleaved"],
  ...["hasQueryScale", "cacheDtype", "cacheRows"],
].map((label) => [label, "i32"] as const);

/** Whether everything goes in one launch: decoding, with queries and weights in the same 16 bits. */
function isFused({ phase, kvB, nopeWidth, latentWidth, qOutDtype = "f32" }: MlaPrologueArguments): boolean {
  const steps = nopeWidth / (16 * FUSED_WARPS);
  const fits = FUSED_STEPS.includes(steps) && latentWidth % FUSED_CHANNELS === 0;
  return phase === "decode" && qOutDtype !== "f32" && kvB.dtype === qOutDtype && fits;
}

/** Grid and scalars that end the list, beside what both builds of the one launch share. */
interface FusedLaunch {
  readonly cuda: CudaEntry;
  /** Blocks that absorb. */
  readonly blocks: number;
  readonly lastScalar: readonly [label: string, value: number];
}

/** The launch of mla-prologue.sm90.cu, or null where it does not take the arguments. */
function hopperLaunch(args: MlaPrologueArguments, limits: DeviceLimits): FusedLaunch | null {
  const { heads, nopeWidth, latentWidth, ropeWidth, maxRows, kvB } = args;
  const fits = latentWidth % HOPPER_CHANNELS === 0 && latentWidth <= HOPPER_LATENT;
  if (!limits.features.has("sm_90") || !fits || ropeWidth > HOPPER_LATENT / 2) return null;
  const { tokens, build, blocks } = shareTokens(heads * (latentWidth / HOPPER_CHANNELS), maxRows, limits);
  const boxes = nopeWidth / 64;
  const weights = (HOPPER_CHANNELS / 64) * boxes;
  const cuda: CudaEntry = {
    module: "mla-prologue.sm90.cubin",
    function: `mlaPrologueAbsorb_${kvB.dtype}_${boxes}_${build}`,
    blockSize: build > 8 ? 320 : 160,
    sharedBytes:
      weights * (BOX_BYTES + 8) +
      build * (4 * nopeWidth + 16) +
      Math.max(8, build) * (2 * HOPPER_CHANNELS + 16),
    tensorMaps: weightBoxes(fusedBuffers, kvB, latentWidth),
    overlaps: true,
  };
  return { cuda, blocks, lastScalar: ["tokens", tokens] };
}

function portableLaunch(args: MlaPrologueArguments): FusedLaunch {
  const { heads, kvB, nopeWidth, latentWidth, ropeWidth } = args;
  const cuda: CudaEntry = {
    module: "mla-prologue.fused.fatbin",
    function: `mlaPrologueFused_${kvB.dtype}_${nopeWidth / (16 * FUSED_WARPS)}`,
    blockSize: 32 * FUSED_WARPS,
    sharedBytes: 4 * (latentWidth + ropeWidth),
    overlaps: true,
  };
  const blocks = heads * (latentWidth / FUSED_CHANNELS);
  return { cuda, blocks, lastScalar: ["prefetches", prefetches(args) ? 1 : 0] };
}

/** Everything in one launch: blocks that append, then those that absorb. */
function enqueueFused(launch: Launch, args: MlaPrologueArguments): void {
  const { heads, nopeWidth, ropeWidth, valueWidth, latentWidth, maxRows, kvB, cache } = args;
  const { q, latent, normWeight, positions, slots, rotaryTable, qOut, rowCount } = args;
  const { cuda, blocks, lastScalar } = hopperLaunch(args, launch.target.limits) ?? portableLaunch(args);
  const scalars = [...fusedScalars, [lastScalar[0], "i32"], ["epsilon", "f32"]] as const;
  launch(
    { name: "mla-prologue", buffers: fusedBuffers, scalars, cuda },
    maxRows + blocks,
    [
      ...[q, latent, normWeight, positions, slots, rotaryTable, args.queryScale ?? positions],
      ...[kvB.buffer, cache.buffer, qOut, rowCount],
    ],
    [
      ...[maxRows, heads, nopeWidth, ropeWidth, valueWidth, latentWidth],
      ...[args.rotary === "interleaved" ? 1 : 0, args.queryScale === null ? 0 : 1],
      ...[latentDtypeCode(cache.dtype), latentCachePages(cache, args) * cache.pageSize],
      ...[lastScalar[1], args.epsilon],
    ],
  );
}

/** `mlaPrologue` on CUDA, its arguments checked; queries leave in `qOutDtype`. */
export function enqueueCuda(launch: Launch, args: MlaPrologueArguments, shapes: PrologueShapes): void {
  if (isFused(args)) {
    enqueueFused(launch, args);
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
