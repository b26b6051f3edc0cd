import { checkFinite, checkInteger } from "../../base/checks.ts";
import { bytesPerElement, type WeightDType } from "../../base/dtypes.ts";
import type { DeviceBuffer, KernelSource, Launch } from "../../device/device.ts";
import { checkWeight, dtypeCode, type WeightMatrix } from "../common/weight.ts";
import { enqueueEmbeddingWebGpu } from "./embedding.webgpu.ts";

/** One record per launch of `embedding`. */
export interface EmbeddingArguments {
  /** i32 [maxRows]. */
  readonly ids: DeviceBuffer;
  /** [vocab, hidden]. */
  readonly table: WeightMatrix;
  /** Multiplies every value; 1 for most models. */
  readonly scale: number;
  /** f32 [maxRows, hidden]. */
  readonly out: DeviceBuffer;
  /** i32 [1]: rows in use; later rows are neither read nor written. */
  readonly rowCount: DeviceBuffer;
  readonly maxRows: number;
}

const kernelOf = (dtype: WeightDType): KernelSource => ({
  name: "embedding",
  buffers: ["ids", "table", "out", "rowCount"],
  scalars: [
    ["vocab", "i32"],
    ["hidden", "i32"],
    ["dtype", "i32"],
    ["scale", "f32"],
  ],
  cpu: "embedding",
  cuda: { module: "embedding.fatbin", function: `embedding_${dtype}`, blockSize: 256, overlaps: true },
});

/**
 * out[r] = scale · table[ids[r]]; a row of zeros for an id outside the table. Throws RangeError for shapes that do not
 * fit the buffers.
 */
export function embedding(launch: Launch, args: EmbeddingArguments): void {
  const { ids, table, scale, out, rowCount, maxRows } = args;
  checkWeight("table", table);
  checkInteger("maxRows", maxRows, { min: 1 });
  checkFinite("scale", scale);
  checkInteger("ids.bytes", ids.bytes, { min: maxRows * 4 });
  checkInteger("out.bytes", out.bytes, { min: maxRows * table.columns * 4 });
  if (launch.target.kind === "webgpu") {
    enqueueEmbeddingWebGpu(launch, args);
    return;
  }
  const scalars = [table.rows, table.columns, dtypeCode[table.dtype], scale];
  launch(kernelOf(table.dtype), maxRows, [ids, table.buffer, out, rowCount], scalars);
}

/** FLOPs and bytes of one call over `rows` rows. */
export function embeddingCost(
  rows: number,
  table: Omit<WeightMatrix, "buffer">,
): { flops: number; bytes: number } {
  const values = rows * table.columns;
  return { flops: values, bytes: values * (bytesPerElement(table.dtype) + 4) + rows * 4 };
}
