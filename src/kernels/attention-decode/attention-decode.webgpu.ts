import type { Launch } from "../../device/device.ts";
import { attentionWebGpu } from "../common/attention.webgpu.ts";
import type { AttentionArguments } from "../common/attention-record.ts";
import mergeCode from "./attention-decode.merge.wgsl.ts";
import code from "./attention-decode.wgsl.ts";

/** How the context is split, and where the statistics begin in the workspace, in float32 units. */
export interface DecodeSplits {
  readonly splits: number;
  readonly leastSplit: number;
  readonly statsOffset: number;
}

/** `attentionDecode` on WebGPU, its arguments checked: the split stage, then the merge. */
export function enqueueDecodeWebGpu(launch: Launch, args: AttentionArguments, split: DecodeSplits): void {
  const { q, cache, blockTable, cacheSeqlens, workspace, out, lse, batch, sQ, heads, headWidth } = args;
  const { splits, leastSplit, statsOffset } = split;
  const partials = workspace.slice(0, 4 * statsOffset);
  const stats = workspace.slice(4 * statsOffset, 8 * batch * splits * sQ * heads);
  const common = attentionWebGpu(args, { splits, leastSplit }, { KEYS: true, VALUES: true });
  const { constants, scalars, values, blocks, batchCount } = common;
  launch(
    {
      name: "attention-decode.partial",
      buffers: ["q", "keys", "values", "table", "lengths", "batchCount", "partials", "stats"],
      scalars,
      webgpu: { code, constants },
    },
    batch * splits * blocks,
    [q, cache.keys, cache.values, blockTable, cacheSeqlens, batchCount, partials, stats],
    values,
  );
  launch(
    {
      name: "attention-decode.merge",
      buffers: ["partials", "stats", "batchCount", "out", "lse"],
      scalars: [
        ["rows", "i32"],
        ["splits", "i32"],
      ],
      webgpu: { code: mergeCode, constants: { WIDTH: headWidth, COUNTED: constants.COUNTED! } },
    },
    batch * sQ * heads,
    [partials, stats, batchCount, out, lse],
    [sQ * heads, splits],
  );
}
