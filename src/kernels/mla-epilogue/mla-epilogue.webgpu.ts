import type { DeviceBuffer, KernelSource, Launch } from "../../device/device.ts";
import { webGpuPartials } from "../common/mla-partials.webgpu.ts";
import { dtypeCode } from "../common/weight.ts";
import type { MlaEpilogueArguments } from "./mla-epilogue.ts";
import code from "./mla-epilogue.wgsl.ts";

/** VALUES of mla-epilogue.wgsl. */
const VALUES = 16;

function kernelOf({ latentWidth, kvB, batchCount }: MlaEpilogueArguments, tokens: number): KernelSource {
  const integers = ["heads", "sQ", "splits", "tokens", "nopeWidth", "valueWidth"];
  return {
    name: "mla-epilogue",
    buffers: ["partials", "stats", "batchCount", "kvB", "out"],
    scalars: integers.map((label) => [label, "i32"] as const),
    webgpu: {
      code,
      constants: {
        LATENT: latentWidth,
        DTYPE: dtypeCode[kvB.dtype],
        TOKENS: tokens,
        MERGE_DEPTH: tokens === 1 ? 16 : 8,
        WEIGHTS_EACH: latentWidth / 64,
        COUNTED: batchCount !== undefined,
      },
    },
  };
}

/** `mlaEpilogue` on WebGPU, its arguments checked. */
export function enqueueWebGpu(launch: Launch, args: MlaEpilogueArguments, workspace: DeviceBuffer): void {
  const { splits, partials, stats } = webGpuPartials(args, workspace);
  const { heads, sQ, nopeWidth, valueWidth, batchCount, kvB, out } = args;
  const tokens = args.batch * sQ;
  // Several tokens share the weights; the statistics of many splits leave no room for that.
  const tokensOfItem = tokens < 4 || splits > 64 ? 1 : 4;
  launch(
    kernelOf(args, tokensOfItem),
    Math.ceil(tokens / tokensOfItem) * heads * Math.ceil(valueWidth / VALUES),
    [partials, stats, batchCount ?? stats, kvB.buffer, out],
    [heads, sQ, splits, tokens, nopeWidth, valueWidth],
  );
}
