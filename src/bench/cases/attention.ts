import { decodeToF32 } from "../../base/convert.ts";
import {
  attentionDecode,
  attentionDecodeCost,
  attentionDecodeWorkspaceBytes,
} from "../../kernels/attention-decode/attention-decode.ts";
import { attentionRowReference } from "../../kernels/common/attention-reference.ts";
import type { KeyValueDtype } from "../../kernels/common/key-value-cache.ts";
import {
  standardAttention,
  standardAttentionCost,
  standardAttentionWorkspaceBytes,
} from "../../kernels/standard-attention/standard-attention.ts";
import { type BenchCase, normals, storedNormals, worstErrorOf } from "../case.ts";
import { PAGE_SIZE } from "./cache.ts";

/** One token over `length` cached ones with keys and values of every head. */
export interface AttentionShape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headWidth: number;
  readonly dtype: KeyValueDtype;
  readonly length: number;
}

const operations = {
  "attention-decode": {
    enqueue: attentionDecode,
    cost: attentionDecodeCost,
    workspaceBytes: attentionDecodeWorkspaceBytes,
  },
  "standard-attention": {
    enqueue: standardAttention,
    cost: standardAttentionCost,
    workspaceBytes: standardAttentionWorkspaceBytes,
  },
} as const;

/** Pages in reverse order: a token's row of one head in a pool [pages, kvHeads, page, width]. */
function rowOf({ kvHeads, length }: AttentionShape, token: number, head: number): number {
  const page = Math.ceil(length / PAGE_SIZE) - 1 - Math.floor(token / PAGE_SIZE);
  return (page * kvHeads + head) * PAGE_SIZE + (token % PAGE_SIZE);
}

/** Attention in float64 of the last head over stored keys and values. */
function lastHead(shape: AttentionShape, stored: readonly Uint8Array[], queries: Float32Array) {
  const { heads, kvHeads, headWidth, dtype, length } = shape;
  const [keys, values] = stored.map((data) => {
    const rowBytes = data.length / (Math.ceil(length / PAGE_SIZE) * PAGE_SIZE * kvHeads);
    return Array.from({ length }, (_, token) => {
      const at = rowOf(shape, token, kvHeads - 1) * rowBytes;
      return decodeToF32(data.subarray(at, at + rowBytes), dtype);
    });
  });
  const query = queries.subarray((heads - 1) * headWidth);
  return attentionRowReference({ query, keys: keys!, values: values!, softmaxScale: headWidth ** -0.5 });
}

/** Attention of one token by either operation; the last head is checked. */
export function attentionCase(operation: keyof typeof operations, shape: AttentionShape): BenchCase {
  const { heads, kvHeads, headWidth, dtype, length } = shape;
  const sizes = { batch: 1, sQ: 1, heads, kvHeads, headWidth, maxLen: length };
  const { enqueue, cost, workspaceBytes } = operations[operation];
  const softmaxScale = headWidth ** -0.5;
  const maxPages = Math.ceil(length / PAGE_SIZE);
  return {
    name: `${operation} b=1 h=${heads} h_kv=${kvHeads} d=${headWidth} s=${length} ${dtype}`,
    cost: cost(sizes, dtype, length),
    tolerance: 1e-5,
    prepare(memory, copies) {
      const stored = [5, 6].map((seed) =>
        storedNormals(maxPages * PAGE_SIZE * kvHeads * headWidth, seed, 1, dtype),
      );
      const [keys, values] = stored.map((data) => memory.uploadCopies(data, copies, "cache"));
      const queries = normals(heads * headWidth, 7);
      const buffers = {
        q: memory.upload(queries, "q"),
        blockTable: memory.upload(
          Int32Array.from({ length: maxPages }, (_, page) => maxPages - 1 - page),
          "blockTable",
        ),
        cacheSeqlens: memory.upload(new Int32Array([length]), "cacheSeqlens"),
        workspace: memory.allocate(workspaceBytes(sizes), "workspace"),
        out: memory.allocate(heads * headWidth * 4, "out"),
        lse: memory.allocate(heads * 4, "lse"),
      };
      return {
        enqueue(launch, copy) {
          const cache = { keys: keys![copy]!, values: values![copy]!, dtype, pageSize: PAGE_SIZE };
          enqueue(launch, { ...sizes, ...buffers, cache, maxPages, mask: "causal", softmaxScale });
        },
        async worstError() {
          const expected = lastHead(shape, stored, queries);
          const out = await memory.readFloats(buffers.out, heads * headWidth);
          const lse = await memory.readFloats(buffers.lse, heads);
          const outError = worstErrorOf(out.subarray((heads - 1) * headWidth), expected.out);
          return Math.max(outError, worstErrorOf([lse[heads - 1]!], [expected.lse]));
        },
      };
    },
  };
}
