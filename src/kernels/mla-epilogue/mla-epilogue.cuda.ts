import { bytesPerElement, type WeightDType } from "../../base/dtypes.ts";
import type { DeviceBuffer, KernelSource, Launch } from "../../device/device.ts";
import { mlaDecodeLayout, mlaDecodeWorkspaceBytes } from "../common/mla-partials.ts";
import { checkBytes } from "../common/weight.ts";
import type { MlaEpilogueArguments } from "./mla-epilogue.ts";

/** TOKENS and VALUES of mla-epilogue.cu. */
const TOKENS = 8;
const VALUES = 32;

/** Codes of a stored form in elements.cuh. */
const storedCode: Readonly<Record<WeightDType, number>> = { f32: 0, f16: 1, bf16: 2 };

const scalars = [
  ...["latentWidth", "heads", "sQ", "splits", "statsOffset", "counted", "tokens"],
  ...["nopeWidth", "valueWidth", "attendedDtype", "outDtype"],
].map((label) => [label, "i32"] as const);

function kernelOf({ kvB, latentWidth }: MlaEpilogueArguments): KernelSource {
  return {
    ...{ name: "mla-epilogue", buffers: ["attended", "batchCount", "kvB", "out"], scalars },
    cuda: {
      ...{ module: "mla-epilogue.fatbin", function: `mlaEpilogue_${kvB.dtype}`, blockSize: 256 },
      sharedBytes: 4 * TOKENS * latentWidth,
    },
  };
}

/** What attention left, checked: partial results of `splits` splits, or merged ones (0 splits). */
function inputOf(args: MlaEpilogueArguments): {
  buffer: DeviceBuffer;
  dtype: WeightDType;
  splits: number;
  statsOffset: number;
} {
  if ("partials" in args) {
    checkBytes("partials", args.partials, mlaDecodeWorkspaceBytes(args));
    return { buffer: args.partials, dtype: "f32", ...mlaDecodeLayout(args) };
  }
  const values = args.batch * args.sQ * args.heads * args.latentWidth;
  checkBytes("attended", args.attended, values * bytesPerElement(args.attendedDtype));
  return { buffer: args.attended, dtype: args.attendedDtype, splits: 0, statsOffset: 0 };
}

/** Rows of W_UV a block of mla-epilogue.fused.cu, while they make enough blocks, or else half of them. */
const FUSED_ROWS = 32;

function enqueueFused(launch: Launch, args: MlaEpilogueArguments, attended: DeviceBuffer): void {
  const { heads, sQ, nopeWidth, valueWidth, latentWidth, kvB, outDtype = "f32" } = args;
  const wide = heads * Math.ceil(valueWidth / FUSED_ROWS) >= launch.target.limits.computeUnits;
  const rows = wide ? FUSED_ROWS : FUSED_ROWS / 2;
  const labels = ["heads", "sQ", "counted", "tokens", "nopeWidth", "valueWidth", "outDtype"];
  const kernel: KernelSource = {
    name: "mla-epilogue",
    buffers: ["attended", "batchCount", "kvB", "out"],
    scalars: labels.map((label) => [label, "i32"] as const),
    cuda: {
      module: "mla-epilogue.fused.fatbin",
      function: `mlaEpilogueFused_${kvB.dtype}_${latentWidth}_${rows / 16}`,
      blockSize: 128,
      overlaps: true,
    },
  };
  const counted = args.batchCount === undefined ? 0 : 1;
  launch(
    kernel,
    heads * Math.ceil(valueWidth / rows),
    [attended, args.batchCount ?? attended, kvB.buffer, args.out],
    [heads, sQ, counted, args.batch * sQ, nopeWidth, valueWidth, storedCode[outDtype]],
  );
}

/** `mlaEpilogue` on CUDA, its sizes and out checked. */
export function enqueueCuda(launch: Launch, args: MlaEpilogueArguments): void {
  const isFused = "attended" in args && args.attendedDtype !== "f32" && args.attendedDtype === args.kvB.dtype;
  if (isFused) {
    enqueueFused(launch, args, inputOf(args).buffer);
    return;
  }
  const { buffer, dtype, splits, statsOffset } = inputOf(args);
  const { heads, sQ, nopeWidth, valueWidth, latentWidth, outDtype = "f32" } = args;
  const tokens = args.batch * sQ;
  const counted = args.batchCount === undefined ? 0 : 1;
  launch(
    kernelOf(args),
    Math.ceil(tokens / TOKENS) * heads * Math.ceil(valueWidth / VALUES),
    [buffer, args.batchCount ?? buffer, args.kvB.buffer, args.out],
    [
      ...[latentWidth, heads, sQ, splits, statsOffset, counted, tokens, nopeWidth, valueWidth],
      ...[storedCode[dtype], storedCode[outDtype]],
    ],
  );
}
