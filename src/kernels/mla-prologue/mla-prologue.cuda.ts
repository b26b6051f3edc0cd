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

/** `mlaPrologue` on CUDA, its arguments checked; queries leave in `qOutDtype`. */
export function enqueueCuda(launch: Launch, args: MlaPrologueArguments, shapes: PrologueShapes): void {
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
