import { bytesPerElement } from "../../base/dtypes.ts";
import { latentEntryBytes } from "../../kernels/common/latent-cache.ts";
import { mlaPrologue, mlaPrologueCost } from "../../kernels/mla-prologue/mla-prologue.ts";
import { mlaPrologueReference } from "../../kernels/mla-prologue/reference.ts";
import { type BenchCase, normals, worstErrorOf } from "../case.ts";
import { PAGE_SIZE } from "./cache.ts";
import { describeLayer, type LayerShape, uploadKvB } from "./widths.ts";

const CACHE_DTYPE = "bf16";
const POSITIONS = 128;

/** Append and absorb of `rows` decode tokens; the queries of all heads are checked for the last token. */
export function prologueCase(shape: LayerShape & { readonly rows: number }): BenchCase {
  const { rows, heads, latentWidth, ropeWidth, nopeWidth } = shape;
  const [width, queryWidth] = [latentWidth + ropeWidth, nopeWidth + ropeWidth];
  const entryBytes = latentEntryBytes(CACHE_DTYPE, shape);
  const common = {
    ...shape,
    phase: "decode",
    rotary: "interleaved",
    queryScale: null,
    epsilon: 1e-6,
  } as const;
  return {
    name: `mla-prologue m=${rows} ${describeLayer(shape)} ${shape.weightDtype}`,
    cost: mlaPrologueCost({ ...common, weightBytes: bytesPerElement(shape.weightDtype), entryBytes }),
    tolerance: 2e-5,
    prepare(memory, copies) {
      const data = {
        q: normals(rows * heads * queryWidth, 1),
        latent: normals(rows * width, 2),
        normWeight: normals(latentWidth, 4),
        positions: Int32Array.from({ length: rows }, (_, row) => 40 + row),
        rotaryTable: normals(POSITIONS * ropeWidth, 7),
        slots: Int32Array.from({ length: rows }, (_, row) => row),
        rowCount: new Int32Array([rows]),
      };
      const buffers = {
        q: memory.upload(data.q, "q"),
        latent: memory.upload(data.latent, "latent"),
        normWeight: memory.upload(data.normWeight, "normWeight"),
        positions: memory.upload(data.positions, "positions"),
        rotaryTable: memory.upload(data.rotaryTable, "rotaryTable"),
        slots: memory.upload(data.slots, "slots"),
        rowCount: memory.upload(data.rowCount, "rowCount"),
        qOut: memory.allocate(rows * heads * width * 4, "qOut"),
      };
      const { weights, values } = uploadKvB(memory, shape, copies);
      const pool = memory.allocate(Math.ceil(rows / PAGE_SIZE) * PAGE_SIZE * entryBytes, "cache");
      const cache = { buffer: pool, dtype: CACHE_DTYPE, pageSize: PAGE_SIZE } as const;
      return {
        enqueue: (launch, copy) =>
          mlaPrologue(launch, { ...common, ...buffers, kvB: weights[copy]!, cache, maxRows: rows }),
        async worstError() {
          const last = {
            ...data,
            q: data.q.subarray((rows - 1) * heads * queryWidth),
            latent: data.latent.subarray((rows - 1) * width),
            positions: data.positions.subarray(rows - 1),
          };
          const expected = mlaPrologueReference({ ...common, ...last, kvB: values, rows: 1 });
          const actual = await memory.readFloats(buffers.qOut, rows * heads * width);
          return worstErrorOf(actual.subarray((rows - 1) * heads * width), expected.queries.flat(2));
        },
      };
    },
  };
}
