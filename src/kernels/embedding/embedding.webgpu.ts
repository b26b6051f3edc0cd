import type { KernelSource, Launch } from "../../device/device.ts";
import { bindingRuns } from "../common/projection.webgpu.ts";
import { dtypeCode, weightBytes } from "../common/weight.ts";
import type { EmbeddingArguments } from "./embedding.ts";
import code from "./embedding.wgsl.ts";

/** `embedding` on WebGPU, its arguments checked: a launch for every part of the table that the adapter binds at once. */
export function enqueueEmbeddingWebGpu(launch: Launch, args: EmbeddingArguments): void {
  const { ids, table, scale, out, rowCount, maxRows } = args;
  const source: KernelSource = {
    name: "embedding",
    buffers: ["ids", "table", "out", "rowCount"],
    scalars: [
      ["vocab", "i32"],
      ["hidden", "i32"],
      ["first", "i32"],
      ["count", "i32"],
      ["scale", "f32"],
    ],
    webgpu: { code, constants: { DTYPE: dtypeCode[table.dtype] } },
  };
  const bytes = weightBytes({ ...table, rows: 1 });
  const { bindingBytes } = launch.target.limits.webgpu!;
  for (const [first, count] of bindingRuns("embedding: table", table.rows, bytes, bindingBytes)) {
    const part = table.buffer.slice(first * bytes, count * bytes);
    launch(source, maxRows, [ids, part, out, rowCount], [table.rows, table.columns, first, count, scale]);
  }
}
