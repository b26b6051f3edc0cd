import { checkInteger, checkOneOf } from "../../base/checks.ts";
import { bytesPerElement, type WeightDType } from "../../base/dtypes.ts";
import type { DeviceBuffer, KernelSource, Launch } from "../../device/device.ts";
import {
  checkMlaDecodeSizes,
  type MlaDecodeSizes,
  mlaDecodeLayout,
  mlaDecodeWorkspaceBytes,
} from "../common/mla-partials.ts";
import { checkBytes, checkWeight, dtypeCode, type WeightMatrix, weightBytes } from "../common/weight.ts";
import { enqueueCuda } from "./mla-epilogue.cuda.ts";
import { enqueueWebGpu } from "./mla-epilogue.webgpu.ts";

/** Where `mlaEpilogue` finds what attention left. */
export type MlaEpilogueInput =
  | {
      /** The workspace that `mlaDecodePartial` filled with the same sizes. */
      readonly partials: DeviceBuffer;
    }
  | {
      /** [batch, sQ, heads, latentWidth]: the `out` of `mlaDecode`; on CUDA alone. */
      readonly attended: DeviceBuffer;
      readonly attendedDtype: WeightDType;
    };

/** One record per launch of `mlaEpilogue`. */
export type MlaEpilogueArguments = MlaDecodeSizes & MlaEpilogueInput & MlaEpilogueProjection;

/** The projection and its result. */
export interface MlaEpilogueProjection {
  /** [heads · (nopeWidth + valueWidth), latentWidth]: for each head nopeWidth rows of W_UK, then W_UV. */
  readonly kvB: WeightMatrix;
  /** d_n. */
  readonly nopeWidth: number;
  /** d_v. */
  readonly valueWidth: number;
  /** [batch · sQ, heads · valueWidth]; zeros for a row that saw no token. */
  readonly out: DeviceBuffer;
  /** Element type of out; default f32. CUDA also writes bf16 and f16. */
  readonly outDtype?: WeightDType;
  /** i32 [1]: sequences in use; later ones are neither read nor written. Default: all. On CUDA written before the program runs. */
  readonly batchCount?: DeviceBuffer;
}

const TOKENS_OF_ITEM = 4;

const kernel: KernelSource = {
  name: "mla-epilogue",
  buffers: ["partials", "batchCount", "kvB", "out"],
  scalars: [
    ["latentWidth", "i32"],
    ["heads", "i32"],
    ["sQ", "i32"],
    ["splits", "i32"],
    ["statsOffset", "i32"],
    ["counted", "i32"],
    ["tokens", "i32"],
    ["dtype", "i32"],
    ["nopeWidth", "i32"],
    ["valueWidth", "i32"],
  ],
  cpu: "mlaEpilogue",
};

/**
 * The merge of the splits and the value projection in one: out = W_UV,i·o_i for every token and head i, where o_i is what
 * `mlaDecode` would return. Throws TypeError or RangeError for sizes it does not take and buffers that are too small.
 */
export function mlaEpilogue(launch: Launch, args: MlaEpilogueArguments): void {
  checkMlaDecodeSizes(args);
  checkInteger("nopeWidth", args.nopeWidth, { min: 0 });
  checkInteger("valueWidth", args.valueWidth, { min: 1 });
  checkWeight("kvB", args.kvB);
  const { heads, nopeWidth, valueWidth, latentWidth, sQ } = args;
  checkInteger("kvB.rows", args.kvB.rows, {
    min: heads * (nopeWidth + valueWidth),
    max: heads * (nopeWidth + valueWidth),
  });
  checkInteger("kvB.columns", args.kvB.columns, { min: latentWidth, max: latentWidth });
  const tokens = args.batch * sQ;
  const { outDtype = "f32" } = args;
  checkBytes("out", args.out, tokens * heads * valueWidth * bytesPerElement(outDtype));
  if (launch.target.kind === "cuda") {
    enqueueCuda(launch, args);
    return;
  }
  checkOneOf("outDtype", outDtype, ["f32"]);
  if (!("partials" in args)) throw new TypeError("attended: only CUDA takes merged results; pass partials");
  checkBytes("partials", args.partials, mlaDecodeWorkspaceBytes(args));
  if (launch.target.kind === "webgpu") {
    enqueueWebGpu(launch, args, args.partials);
    return;
  }
  const { splits, statsOffset } = mlaDecodeLayout(args);
  const counted = args.batchCount === undefined ? 0 : 1;
  launch(
    kernel,
    Math.ceil(tokens / TOKENS_OF_ITEM) * heads,
    [args.partials, args.batchCount ?? args.partials, args.kvB.buffer, args.out],
    [
      latentWidth,
      heads,
      sQ,
      splits,
      statsOffset,
      counted,
      tokens,
      dtypeCode[args.kvB.dtype],
      nopeWidth,
      valueWidth,
    ],
  );
}

/** FLOPs and bytes of one call over `tokens` tokens: 2·heads·d_v·d_c a token; W_UV and every split's output once. */
export function mlaEpilogueCost(
  args: MlaDecodeSizes & { readonly valueWidth: number; readonly kvB: Pick<WeightMatrix, "dtype"> },
  tokens: number,
): { flops: number; bytes: number } {
  const { heads, valueWidth, latentWidth } = args;
  const weights = weightBytes({ dtype: args.kvB.dtype, rows: heads * valueWidth, columns: latentWidth });
  const { splits } = mlaDecodeLayout(args);
  return {
    flops: 2 * tokens * heads * latentWidth * (valueWidth + splits),
    bytes: weights + 4 * tokens * heads * (valueWidth + splits * (latentWidth + 2)),
  };
}
