import type { KernelSource, Launch } from "../../device/device.ts";
import { latentCachePages, latentDtypeCode } from "../common/latent-cache.ts";
import { dtypeCode } from "../common/weight.ts";
import type { MlaPrologueArguments } from "./mla-prologue.ts";
import code from "./mla-prologue.wgsl.ts";

/** Channels of a workgroup that absorbs: CHUNK vectors of four in mla-prologue.wgsl. */
const CHANNELS = 64;
const WORKGROUP = 128;
/** Storage buffers of a launch that does everything. */
const ALL_BUFFERS = 11;

const buffers = [
  ...["q", "latent", "normWeight", "positions", "rotaryTable", "queryScale"],
  ...["slots", "cache", "kvB", "qOut", "rowCount"],
];

function kernelOf(
  args: MlaPrologueArguments,
  append: boolean,
  queries: boolean,
  tokens: number,
): KernelSource {
  const part = append && queries ? "" : append ? ".append" : args.phase === "decode" ? ".absorb" : ".rotate";
  const integers = ["heads", "valueWidth", "appendItems", "cacheRows"];
  return {
    ...{ name: `mla-prologue${part}`, buffers },
    scalars: [...integers.map((label) => [label, "i32"] as const), ["epsilon", "f32"]],
    webgpu: {
      code,
      constants: {
        APPEND: append,
        QUERIES: queries ? (args.phase === "decode" ? 1 : 2) : 0,
        LATENT: args.latentWidth,
        ROPE: args.ropeWidth,
        NOPE: args.nopeWidth,
        INTERLEAVED: args.rotary === "interleaved",
        HAS_SCALE: args.queryScale !== null,
        LATENT_DTYPE: latentDtypeCode(args.cache.dtype),
        DTYPE: dtypeCode[args.kvB.dtype],
        ...{ TOKENS: tokens, WORKGROUP, MOST: args.maxRows },
        LATENT_EACH: Math.ceil(args.latentWidth / WORKGROUP),
        ROWS_EACH: Math.ceil((args.nopeWidth * (CHANNELS / 4)) / WORKGROUP),
      },
    },
  };
}

/** `mlaPrologue` on WebGPU, its arguments checked: one launch, or two where only 8 buffers can be bound. */
export function enqueueWebGpu(launch: Launch, args: MlaPrologueArguments): void {
  const { heads, latentWidth, maxRows, positions, cache, epsilon, valueWidth } = args;
  // Four tokens' queries and sums fit the workgroup memory of the default limits.
  const tokens = maxRows < 4 || args.nopeWidth > 256 ? 1 : 4;
  const queryItems =
    args.phase === "prefill"
      ? maxRows * heads
      : Math.ceil(maxRows / tokens) * heads * (Math.ceil(latentWidth / CHANNELS) + 1);
  const all = [
    ...[args.q, args.latent, args.normWeight, positions, args.rotaryTable, args.queryScale ?? positions],
    ...[args.slots, cache.buffer, args.kvB.buffer, args.qOut, args.rowCount],
  ];
  const cacheRows = latentCachePages(cache, args) * cache.pageSize;
  const run = (append: boolean, queries: boolean) => {
    const appendItems = append ? maxRows : 0;
    const scalars = [heads, valueWidth, appendItems, cacheRows, epsilon];
    launch(kernelOf(args, append, queries, tokens), appendItems + (queries ? queryItems : 0), all, scalars);
  };
  if ((launch.target.limits.webgpu?.storageBuffers ?? 8) >= ALL_BUFFERS) {
    run(true, true);
    return;
  }
  run(true, false);
  run(false, true);
}
