import type { CudaMatmul, CudaMatmulBatch, KernelSource, Launch } from "../device/device.ts";
import { mlaPrologue } from "../kernels/mla-prologue/mla-prologue.ts";
import {
  ENTRY,
  KV_ROWS,
  type Layer,
  type LayerMemory,
  layerWidths,
  PAGE,
  QUERY,
} from "./gpu-layer-memory.ts";
import { layerConstants } from "./gpu-layer-truth.ts";

const { nopeWidth, latentWidth, valueWidth } = layerWidths;

/** A product for every head at once by cuBLASLt. */
function headProducts(
  name: string,
  sizes: Pick<CudaMatmul, "rows" | "inputs" | "outputs" | "outType">,
  batch: Omit<CudaMatmulBatch, "weightStride">,
): KernelSource {
  const weightStride = KV_ROWS * latentWidth;
  const product = { inputType: "bf16", mode: "store", scale: 1, batch: { ...batch, weightStride } } as const;
  return { name, buffers: ["x", "weight", "out"], scalars: [], cublas: { ...sizes, ...product } };
}

/**
 * The layer's work as separate launches around `attend`: append, rotary with rounding to bf16, W_UK, attention, W_UV. The rotary parts' way
 * into the absorbed queries, one launch more, is left out, so this is a little less than the whole; its values are not checked.
 */
export function recordUnfused(
  launch: Launch,
  memory: LayerMemory,
  { kvB, cache }: Layer,
  attend: () => void,
): void {
  const { inputs, shape } = memory;
  const { heads, batch: rows } = shape;
  const { sizes, q, latent, normWeight, positions, rotary, slotBuffer, rotated, absorbed, rowCount } = inputs;
  mlaPrologue(launch, {
    ...{ ...sizes, phase: "prefill", q, latent, normWeight, positions, rowCount, maxRows: rows },
    epsilon: layerConstants.epsilon,
    ...{ rotaryTable: rotary, rotary: "interleaved", queryScale: null, slots: slotBuffer },
    kvB: { buffer: kvB, dtype: "bf16", rows: heads * KV_ROWS, columns: latentWidth },
    cache: { buffer: cache, dtype: "bf16", pageSize: PAGE },
    ...{ qOut: rotated, qOutDtype: "bf16" },
  });
  const absorb = headProducts(
    "bench.absorb",
    { rows, inputs: nopeWidth, outputs: latentWidth, outType: "bf16" },
    {
      ...{ count: heads, weightByInputs: true, xStride: QUERY, xPitch: heads * QUERY },
      ...{ outStride: ENTRY, outPitch: heads * ENTRY },
    },
  );
  launch(absorb, 1, [rotated, kvB, absorbed]);
  attend();
  const project = headProducts(
    "bench.project",
    { rows, inputs: latentWidth, outputs: valueWidth, outType: "bf16" },
    {
      ...{ count: heads, weightByInputs: false, xStride: latentWidth, xPitch: heads * latentWidth },
      ...{ outStride: valueWidth, outPitch: heads * valueWidth },
    },
  );
  const before = nopeWidth * latentWidth * 2;
  launch(project, 1, [inputs.attended, kvB.slice(before, kvB.bytes - before), inputs.values]);
}
