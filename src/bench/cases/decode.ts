import { type MlaDecodeSizes, mlaDecodeWorkspaceBytes } from "../../kernels/common/mla-partials.ts";
import { mlaDecode, mlaDecodeCost } from "../../kernels/mla-decode/mla-decode.ts";
import { mlaRowReference } from "../../kernels/mla-decode/reference.ts";
import { type BenchCase, normals, worstErrorOf } from "../case.ts";
import { type CacheShape, fillCache, PAGE_SIZE } from "./cache.ts";

/** Attention of one absorbed token over `length` cached ones; the first and the last head are checked. */
export function decodeCase(shape: CacheShape & { readonly heads: number }): BenchCase {
  const { heads, latentWidth, ropeWidth, length, dtype } = shape;
  const width = latentWidth + ropeWidth;
  const sizes: MlaDecodeSizes = { batch: 1, sQ: 1, heads, latentWidth, ropeWidth, maxLen: length };
  const softmaxScale = 192 ** -0.5;
  return {
    name: `mla-decode b=1 h=${heads} d_c=${latentWidth} d_r=${ropeWidth} s=${length} ${dtype}`,
    cost: mlaDecodeCost(sizes, dtype, length),
    tolerance: 1e-5,
    prepare(memory, copies) {
      const queries = normals(heads * width, 6, 0.3);
      const cache = fillCache(shape);
      const pools = memory.uploadCopies(cache.pool, copies, "cache");
      const buffers = {
        q: memory.upload(queries, "q"),
        blockTable: memory.upload(cache.blockTable, "blockTable"),
        cacheSeqlens: memory.upload(new Int32Array([length]), "cacheSeqlens"),
        workspace: memory.allocate(mlaDecodeWorkspaceBytes(sizes), "workspace"),
        out: memory.allocate(heads * latentWidth * 4, "out"),
        lse: memory.allocate(heads * 4, "lse"),
      };
      const table = { mask: "causal", maxPages: cache.blockTable.length } as const;
      return {
        enqueue(launch, copy) {
          const pool = { buffer: pools[copy]!, dtype, pageSize: PAGE_SIZE };
          mlaDecode(launch, { ...sizes, ...table, ...buffers, cache: pool, softmaxScale });
        },
        async worstError() {
          const tokens = Array.from({ length }, (_, token) => cache.entry(token));
          const out = await memory.readFloats(buffers.out, heads * latentWidth);
          const lse = await memory.readFloats(buffers.lse, heads);
          const errors = [0, heads - 1].map((head) => {
            const query = queries.subarray(head * width, (head + 1) * width);
            const expected = mlaRowReference({ query, tokens, latentWidth, softmaxScale });
            const actual = out.subarray(head * latentWidth, (head + 1) * latentWidth);
            return Math.max(worstErrorOf(actual, expected.out), worstErrorOf([lse[head]!], [expected.lse]));
          });
          return Math.max(...errors);
        },
      };
    },
  };
}
