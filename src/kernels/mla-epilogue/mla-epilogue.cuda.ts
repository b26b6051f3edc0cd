import { bytesPerElement, type WeightDType } from "../../base/dtypes.ts";
import type { CudaEntry, DeviceBuffer, DeviceLimits, KernelSource, Launch } from "../../device/device.ts";
import { mlaDecodeLayout, mlaDecodeWorkspaceBytes } from "../common/mla-partials.ts";
import { shareTokens, weightBoxes } from "../common/token-shares.cuda.ts";
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

const fusedBuffers = ["attended", "batchCount", "kvB", "out"];
const fusedScalars = ["heads", "sQ", "counted", "tokens", "nopeWidth", "valueWidth", "outDtype"].map(
  (label) => [label, "i32"] as const,
);

/** Of mla-epilogue.fused.cu: rows of W_UV a block, while they make enough blocks, or else half of them; latent widths. */
const FUSED_ROWS = 32;
const FUSED_LATENTS = [128, 256, 512];

/** Of mla-epilogue.sm90.cu: rows of W_UV a block, bytes of a box of 64 of their channels, latent widths. */
const HOPPER_ROWS = 64;
const BOX_BYTES = 64 * 128;
const HOPPER_LATENTS = [256, 512];

/** How a kernel after merged results is launched; tokens of a block where the kernel asks for them. */
interface FusedLaunch {
  readonly cuda: CudaEntry;
  readonly blocks: number;
  readonly tokens?: number;
}

/** The launch of mla-epilogue.sm90.cu, or null where it does not take the arguments. */
function hopperLaunch(args: MlaEpilogueArguments, limits: DeviceLimits): FusedLaunch | null {
  const { heads, latentWidth, valueWidth, kvB, batch, sQ } = args;
  const fits = HOPPER_LATENTS.includes(latentWidth) && valueWidth % HOPPER_ROWS === 0;
  if (!limits.features.has("sm_90") || !fits) return null;
  const { tokens, blocks, ...shares } = shareTokens(heads * (valueWidth / HOPPER_ROWS), batch * sQ, limits);
  const build = Math.max(8, shares.build);
  const cuda: CudaEntry = {
    module: "mla-epilogue.sm90.cubin",
    function: `mlaEpilogueProject_${kvB.dtype}_${latentWidth}_${build}`,
    blockSize: build > 8 ? 256 : 128,
    sharedBytes: (latentWidth / 64) * (BOX_BYTES + 8) + build * (2 * latentWidth + 16),
    tensorMaps: weightBoxes(fusedBuffers, kvB, latentWidth),
    overlaps: true,
  };
  return { cuda, blocks, tokens };
}

function portableLaunch(args: MlaEpilogueArguments, { computeUnits }: DeviceLimits): FusedLaunch {
  const { heads, valueWidth, latentWidth, kvB } = args;
  const wide = heads * Math.ceil(valueWidth / FUSED_ROWS) >= computeUnits;
  const rows = wide ? FUSED_ROWS : FUSED_ROWS / 2;
  const name = `mlaEpilogueFused_${kvB.dtype}_${latentWidth}_${rows / 16}`;
  const cuda = { module: "mla-epilogue.fused.fatbin", function: name, blockSize: 128, overlaps: true };
  return { cuda, blocks: heads * Math.ceil(valueWidth / rows) };
}

function enqueueFused(launch: Launch, args: MlaEpilogueArguments, attended: DeviceBuffer): void {
  const { heads, sQ, nopeWidth, valueWidth, kvB, outDtype = "f32" } = args;
  const { limits } = launch.target;
  const { cuda, blocks, tokens } = hopperLaunch(args, limits) ?? portableLaunch(args, limits);
  const counted = args.batchCount === undefined ? 0 : 1;
  const own = tokens === undefined ? [] : [["tokensOfBlock", "i32"] as const];
  launch(
    { name: "mla-epilogue", buffers: fusedBuffers, scalars: [...fusedScalars, ...own], cuda },
    blocks,
    [attended, args.batchCount ?? attended, kvB.buffer, args.out],
    [
      ...[heads, sQ, counted, args.batch * sQ, nopeWidth, valueWidth, storedCode[outDtype]],
      ...(tokens === undefined ? [] : [tokens]),
    ],
  );
}

/** `mlaEpilogue` on CUDA, its sizes and out checked. */
export function enqueueCuda(launch: Launch, args: MlaEpilogueArguments): void {
  const isFused = "attended" in args && args.attendedDtype !== "f32" && args.attendedDtype === args.kvB.dtype;
  if (isFused && FUSED_LATENTS.includes(args.latentWidth)) {
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
