import { bytesPerElement, type WeightDType } from "../../base/dtypes.ts";
import type { CudaEntry, KernelSource, Launch } from "../../device/device.ts";
import { latentDtypeCode } from "../common/latent-cache.ts";
import { checkBytes } from "../common/weight.ts";
import type { MlaPrefillArguments } from "./mla-prefill.ts";

/** Tile edges of mla-prefill.cu. */
const EDGE = 64;
const QUERIES = 32;
const KEYS = 32;
const MOST_VALUES = 256;
/** Bytes of shared memory that a block can have on every GPU since Ampere. */
const MOST_SHARED = 99 * 1024;
/** Keys and values of a group of heads take no more scratch memory than this, unless one head's do. */
const MOST_SCRATCH = 256 * 2 ** 20;

/** Codes of a stored form in elements.cuh. */
const storedCode: Readonly<Record<WeightDType, number>> = { f32: 0, f16: 1, bf16: 2 };

const integers = (labels: readonly string[]) => labels.map((label) => [label, "i32"] as const);

/** How many heads are expanded at a time, and into how much memory. */
export interface HeadGroups {
  /** Tokens for which there is room. */
  readonly tokens: number;
  /** Heads of a group; the last may have fewer. */
  readonly heads: number;
  readonly scratchBytes: number;
}

/** Groups of heads whose keys and values of `bytes` bytes a token fit the scratch memory, of nearly equal size. */
export function headGroups(args: MlaPrefillArguments, bytes: number, extraBytes = 0): HeadGroups {
  const named = Math.floor(args.blockTable.bytes / 4) * args.cache.pageSize;
  const tokens = Math.min(args.maxLen ?? named, named);
  const fitting = Math.max(1, Math.floor(MOST_SCRATCH / (tokens * bytes)));
  const groups = Math.ceil(args.heads / fitting);
  const heads = Math.ceil(args.heads / groups);
  return { tokens, heads, scratchBytes: Math.max(256, tokens * (heads * bytes + extraBytes)) };
}

function expandKernel({ kvB }: MlaPrefillArguments, scratchBytes: number): KernelSource {
  return {
    name: "mla-prefill.expand",
    buffers: ["cache", "blockTable", "cacheSeqlens", "kvB"],
    scalars: integers(["firstHead", "rows", "latentWidth", "ropeWidth", "cacheDtype", "pageSize", "tokens"]),
    cuda: {
      ...{ module: "mla-prefill.fatbin", function: `mlaPrefillExpand_${kvB.dtype}`, blockSize: 256 },
      scratchBytes,
    },
  };
}

function attendKernel(entry: CudaEntry): KernelSource {
  const labels = ["firstHead", "groupHeads", "heads", "nopeWidth", "ropeWidth", "valueWidth", "latentWidth"];
  labels.push("cacheDtype", "pageSize", "tokens", "qDtype", "outDtype");
  return {
    name: "mla-prefill.attend",
    buffers: ["q", "cache", "blockTable", "cacheSeqlens", "rowCount", "out"],
    scalars: [...integers(labels), ["base2Scale", "f32"]],
    cuda: entry,
  };
}

function attendEntry(
  { nopeWidth, ropeWidth, valueWidth }: MlaPrefillArguments,
  scratchBytes: number,
): CudaEntry {
  const pitch = nopeWidth + ropeWidth + 4;
  const sharedBytes = 4 * ((QUERIES + KEYS) * pitch + KEYS * valueWidth + QUERIES * KEYS);
  if (valueWidth > MOST_VALUES || sharedBytes > MOST_SHARED) {
    throw new RangeError(
      `heads of ${nopeWidth} + ${ropeWidth} and ${valueWidth} are too wide for mla-prefill on CUDA`,
    );
  }
  const name = { module: "mla-prefill.fatbin", function: "mlaPrefillAttend", blockSize: 256 };
  return { ...name, sharedBytes, scratchBytes };
}

/** `mlaPrefill` on CUDA in float32, its arguments checked. */
export function enqueueCuda(launch: Launch, args: MlaPrefillArguments): void {
  const { heads, nopeWidth, ropeWidth, valueWidth, latentWidth, cache, maxRows } = args;
  const { qDtype = "f32", outDtype = "f32" } = args;
  checkBytes("q", args.q, maxRows * heads * (nopeWidth + ropeWidth) * bytesPerElement(qDtype));
  checkBytes("out", args.out, maxRows * heads * valueWidth * bytesPerElement(outDtype));
  const rows = nopeWidth + valueWidth;
  const groups = headGroups(args, rows * 4);
  const { tokens, scratchBytes } = groups;
  const expand = expandKernel(args, scratchBytes);
  const attend = attendKernel(attendEntry(args, scratchBytes));
  const cacheScalars = [latentDtypeCode(cache.dtype), cache.pageSize, tokens];
  for (let first = 0; first < heads; first += groups.heads) {
    const count = Math.min(groups.heads, heads - first);
    launch(
      expand,
      Math.ceil(rows / EDGE) * Math.ceil(tokens / EDGE) * count,
      [cache.buffer, args.blockTable, args.cacheSeqlens, args.kvB.buffer],
      [first, rows, latentWidth, ropeWidth, ...cacheScalars],
    );
    launch(
      attend,
      Math.ceil(maxRows / QUERIES) * count,
      [args.q, cache.buffer, args.blockTable, args.cacheSeqlens, args.rowCount, args.out],
      [
        ...[first, count, heads, nopeWidth, ropeWidth, valueWidth, latentWidth, ...cacheScalars],
        ...[storedCode[qDtype], storedCode[outDtype], args.softmaxScale * Math.LOG2E],
      ],
    );
  }
}
