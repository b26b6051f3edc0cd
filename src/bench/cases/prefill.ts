import { decodeToF32 } from "../../base/convert.ts";
import { bytesPerElement, type WeightDType } from "../../base/dtypes.ts";
import { type LatentDtype, latentEntryBytes } from "../../kernels/common/latent-cache.ts";
import { mlaPrefill, mlaPrefillCost } from "../../kernels/mla-prefill/mla-prefill.ts";
import { mlaPrefillReference } from "../../kernels/mla-prefill/reference.ts";
import { type BenchCase, storedNormals, worstErrorOf } from "../case.ts";
import { fillCache, PAGE_SIZE } from "./cache.ts";
import { describeLayer, type LayerShape, uploadKvB } from "./widths.ts";

/** A prompt's chunk at the end of a context. */
export interface PrefillShape extends LayerShape {
  readonly rows: number;
  readonly length: number;
  readonly cacheDtype: LatentDtype;
  /** Default f32; in 16 bits GPUs multiply on tensor cores. */
  readonly queryDtype?: WeightDType;
}

/** The last `rows` tokens of a sequence of `length`; the last token's first head is checked. */
export function prefillCase(shape: PrefillShape): BenchCase {
  const { rows, length, heads, latentWidth, nopeWidth, ropeWidth, valueWidth, cacheDtype: dtype } = shape;
  const { queryDtype: qDtype = "f32" } = shape;
  const queryWidth = nopeWidth + ropeWidth;
  const softmaxScale = queryWidth ** -0.5;
  const weightBytes = bytesPerElement(shape.weightDtype);
  return {
    name: `mla-prefill n=${rows} s=${length} ${describeLayer(shape)} ${dtype}`,
    cost: mlaPrefillCost({ ...shape, weightBytes, entryBytes: latentEntryBytes(dtype, shape) }),
    tolerance: qDtype === "f32" ? 2e-5 : 2e-2,
    prepare(memory, copies) {
      const stored = storedNormals(rows * heads * queryWidth, 9, 1, qDtype);
      const queries = decodeToF32(stored, qDtype);
      const cache = fillCache({ ...shape, dtype });
      const { weights, values } = uploadKvB(memory, shape, copies);
      const buffers = {
        q: memory.upload(stored, "q"),
        qDtype,
        cache: { buffer: memory.upload(cache.pool, "cache"), dtype, pageSize: PAGE_SIZE },
        blockTable: memory.upload(cache.blockTable, "blockTable"),
        cacheSeqlens: memory.upload(new Int32Array([length]), "cacheSeqlens"),
        rowCount: memory.upload(new Int32Array([rows]), "rowCount"),
        out: memory.allocate(rows * heads * valueWidth * 4, "out"),
      };
      return {
        enqueue: (launch, copy) =>
          mlaPrefill(launch, { ...shape, ...buffers, kvB: weights[copy]!, maxRows: rows, softmaxScale }),
        async worstError() {
          const entries = new Float32Array(length * (latentWidth + ropeWidth));
          for (let t = 0; t < length; t++) entries.set(cache.entry(t), t * (latentWidth + ropeWidth));
          const row = (rows - 1) * heads;
          const q = queries.subarray(row * queryWidth, (row + 1) * queryWidth);
          const sample = { ...shape, heads: 1, rows: 1, softmaxScale };
          const expected = mlaPrefillReference({ ...sample, q, entries, kvB: values });
          const actual = await memory.readFloats(buffers.out, rows * heads * valueWidth);
          return worstErrorOf(actual.subarray(row * valueWidth, (row + 1) * valueWidth), expected);
        },
      };
    },
  };
}
