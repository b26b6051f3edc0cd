import type { Launch, WgslSource } from "../../device/device.ts";
import { attentionWebGpu } from "../common/attention.webgpu.ts";
import type { AttentionArguments } from "../common/attention-record.ts";
import scoreCode from "./standard-attention.score.wgsl.ts";
import softmaxCode from "./standard-attention.softmax.wgsl.ts";
import valueCode from "./standard-attention.value.wgsl.ts";

/** Tokens of a workgroup of the score stage, and channels of one of the value stage. */
const CHUNK = 128;
const CHANNELS = 32;

/** `standardAttention` on WebGPU, its arguments checked; rows of scores lie `stride` floats apart. */
export function enqueueStandardWebGpu(launch: Launch, args: AttentionArguments, stride: number): void {
  const { q, cache, blockTable: table, cacheSeqlens: lengths, workspace: scores, out, lse, batch } = args;
  const chunks = Math.ceil(args.maxLen / CHUNK);
  const parts = Math.ceil(args.headWidth / CHANNELS);
  const stage = (
    name: string,
    code: WgslSource,
    reads: { readonly KEYS: boolean; readonly VALUES: boolean },
    own: Readonly<Record<string, number>>,
  ) => {
    const { constants, scalars, values, blocks, batchCount } = attentionWebGpu(args, own, reads);
    const webgpu = { code, constants: { ...constants, WORKGROUP: 256 } };
    const source = { name: `standard-attention.${name}`, scalars, webgpu };
    return { source, values, blocks, batchCount };
  };
  const score = stage("score", scoreCode, { KEYS: true, VALUES: false }, { chunks, stride });
  const { batchCount } = score;
  launch(
    { ...score.source, buffers: ["q", "keys", "table", "lengths", "batchCount", "scores"] },
    batch * chunks * score.blocks,
    [q, cache.keys, table, lengths, batchCount, scores],
    score.values,
  );
  const softmax = stage("softmax", softmaxCode, { KEYS: false, VALUES: false }, { stride });
  launch(
    { ...softmax.source, buffers: ["lengths", "batchCount", "scores", "lse"] },
    batch * args.sQ * args.heads,
    [lengths, batchCount, scores, lse],
    softmax.values,
  );
  const value = stage("value", valueCode, { KEYS: false, VALUES: true }, { parts, stride });
  launch(
    { ...value.source, buffers: ["values", "table", "lengths", "batchCount", "scores", "out"] },
    batch * parts * value.blocks,
    [cache.values, table, lengths, batchCount, scores, out],
    value.values,
  );
}
