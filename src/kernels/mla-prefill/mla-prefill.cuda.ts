import { bytesPerElement, type WeightDType } from "../../base/dtypes.ts";
import type { CudaEntry, DeviceLimits, KernelSource, Launch } from "../../device/device.ts";
import { latentDtypeCode } from "../common/latent-cache.ts";
import { checkBytes } from "../common/weight.ts";
import { headGroups } from "./head-groups.ts";
import { enqueueTensor, takesTensor } from "./mla-prefill.tensor.ts";
import type { MlaPrefillArguments } from "./mla-prefill.ts";

/** Tile edges of mla-prefill.cu. */
const EDGE = 64;
const QUERIES = 32;
const KEYS = 32;
const MOST_VALUES = 256;
/** Codes of a stored form in elements.cuh. */
const storedCode: Readonly<Record<WeightDType, number>> = { f32: 0, f16: 1, bf16: 2 };

const integers = (labels: readonly string[]) => labels.map((label) => [label, "i32"] as const);

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

/** Bytes of shared memory that a block can have: less on consumer GPUs. */
function mostShared({ features }: DeviceLimits): number {
  return ["sm_86", "sm_89", "sm_120"].some((name) => features.has(name)) ? 99 * 1024 : 163 * 1024;
}

function attendEntry(args: MlaPrefillArguments, limits: DeviceLimits, scratchBytes: number): CudaEntry {
  const { nopeWidth, ropeWidth, valueWidth } = args;
  const pitch = nopeWidth + ropeWidth + 4;
  const sharedBytes = 4 * ((QUERIES + KEYS) * pitch + KEYS * valueWidth + QUERIES * KEYS);
  if (valueWidth > MOST_VALUES || sharedBytes > mostShared(limits)) {
    throw new RangeError(
      `heads of ${nopeWidth} + ${ropeWidth} and ${valueWidth} are too wide for mla-prefill on CUDA`,
    );
  }
  const name = { module: "mla-prefill.fatbin", function: "mlaPrefillAttend", blockSize: 256 };
  return { ...name, sharedBytes, scratchBytes };
}

/** `mlaPrefill` on CUDA, its arguments checked: on tensor cores where q is in 16 bits and they take the shape. */
export function enqueueCuda(launch: Launch, args: MlaPrefillArguments): void {
  const { heads, nopeWidth, ropeWidth, valueWidth, maxRows, qDtype = "f32", outDtype = "f32" } = args;
  checkBytes("q", args.q, maxRows * heads * (nopeWidth + ropeWidth) * bytesPerElement(qDtype));
  checkBytes("out", args.out, maxRows * heads * valueWidth * bytesPerElement(outDtype));
  if (takesTensor(args, launch.target.limits)) enqueueTensor(launch, args);
  else enqueueFloat(launch, args);
}

/** The same in float32, any widths. */
function enqueueFloat(launch: Launch, args: MlaPrefillArguments): void {
  const { heads, nopeWidth, ropeWidth, valueWidth, latentWidth, cache, maxRows } = args;
  const { qDtype = "f32", outDtype = "f32" } = args;
  const rows = nopeWidth + valueWidth;
  const groups = headGroups(args, rows * 4);
  const { tokens, scratchBytes } = groups;
  const expand = expandKernel(args, scratchBytes);
  const attend = attendKernel(attendEntry(args, launch.target.limits, scratchBytes));
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
