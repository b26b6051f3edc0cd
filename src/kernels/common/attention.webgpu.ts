import type { DeviceBuffer, ScalarKind } from "../../device/device.ts";
import type { AttentionArguments } from "./attention-record.ts";
import { keyValueDtypeCode } from "./key-value-cache.ts";

/** What every kernel over key-value.wgsl is told: constants, scalars, and how many workgroups share a sequence's part. */
export interface AttentionLaunch {
  readonly constants: Readonly<Record<string, number | boolean>>;
  /** Names and kinds of the scalars, in the order of {@link values}. */
  readonly scalars: readonly (readonly [name: string, kind: ScalarKind])[];
  readonly values: readonly number[];
  /** Blocks of query rows over all key heads. */
  readonly blocks: number;
  /** i32 [1], or any buffer where all sequences are in use. */
  readonly batchCount: DeviceBuffer;
}

const MOST_ROWS = 4;

/** {@link AttentionLaunch} of `args`, with the kernel's own integers behind the common ones. */
export function attentionWebGpu(
  args: AttentionArguments,
  own: Readonly<Record<string, number>>,
  reads: { readonly KEYS: boolean; readonly VALUES: boolean },
): AttentionLaunch {
  const { cache, sQ, heads, kvHeads, headWidth, maxPages, mask, window, batchCount } = args;
  const span = (sQ * heads) / kvHeads;
  const ROWS = Math.min(MOST_ROWS, span);
  const integers = { tableWidth: maxPages, sQ, heads, kvHeads, causal: mask === "causal" ? 1 : 0 };
  const all = { ...integers, window: window ?? 0, ...own };
  return {
    constants: {
      ...{ ...reads, ROWS, WIDTH: headWidth, PAGE_SIZE: cache.pageSize },
      ...{ KV_DTYPE: keyValueDtypeCode(cache.dtype), COUNTED: batchCount !== undefined },
    },
    scalars: [...Object.keys(all).map((name) => [name, "i32"] as const), ["softmaxScale", "f32"]],
    values: [...Object.values(all), args.softmaxScale],
    blocks: kvHeads * Math.ceil(span / ROWS),
    batchCount: batchCount ?? args.cacheSeqlens,
  };
}
