import type { DeviceBuffer } from "../device/device.ts";
import { mlaRowReference } from "../kernels/mla-decode/reference.ts";
import { mlaPrologueReference } from "../kernels/mla-prologue/reference.ts";
import { readBf16 } from "./gpu-decode-truth.ts";
import { ENTRY, KV_ROWS, type LayerMemory, layerWidths, PAGE, QUERY } from "./gpu-layer-memory.ts";

/** The constants of every measured layer. */
export const layerConstants = { epsilon: 1e-6, softmaxScale: QUERY ** -0.5 } as const;

/** Float64 values [valueWidth] of the first layer's last head of the last sequence, the new entry rounded as it is stored. */
export async function layerTruth(memory: LayerMemory): Promise<Float64Array> {
  const { device, shape, inputs } = memory;
  const { kvB, cache } = memory.layers[0]!;
  const { heads, batch, length } = shape;
  const bf16 = (buffer: DeviceBuffer, first: number, count: number) =>
    readBf16(device, buffer, first * 2, count);
  const floats = async (buffer: DeviceBuffer, first: number, count: number) =>
    new Float32Array(await device.read(buffer, first * 4, count * 4));
  const weights = await bf16(
    kvB,
    (heads - 1) * KV_ROWS * layerWidths.latentWidth,
    KV_ROWS * layerWidths.latentWidth,
  );
  const { queries } = mlaPrologueReference({
    ...{ ...layerWidths, heads: 1, rows: 1, phase: "decode", rotary: "interleaved", queryScale: null },
    ...{
      epsilon: layerConstants.epsilon,
      kvB: weights,
      positions: [0],
      normWeight: new Float32Array(512).fill(1),
    },
    q: await floats(inputs.q, (batch * heads - 1) * QUERY, QUERY),
    latent: await floats(inputs.latent, (batch - 1) * ENTRY, ENTRY),
    rotaryTable: await floats(inputs.rotary, 0, layerWidths.ropeWidth),
  });
  const tokens: Float32Array[] = [];
  for (const page of inputs.order.subarray((batch - 1) * inputs.pages)) {
    const values = await bf16(cache, page * PAGE * ENTRY, PAGE * ENTRY);
    for (let t = 0; t < PAGE; t++) tokens.push(values.subarray(t * ENTRY, (t + 1) * ENTRY));
  }
  const { out } = mlaRowReference({
    ...{ query: queries[0]![0]!, tokens: tokens.slice(0, length) },
    ...{ latentWidth: layerWidths.latentWidth, softmaxScale: layerConstants.softmaxScale },
  });
  return Float64Array.from({ length: layerWidths.valueWidth }, (_, v) => {
    const row = (layerWidths.nopeWidth + v) * layerWidths.latentWidth;
    return out.reduce((sum, value, c) => sum + value * weights[row + c]!, 0);
  });
}
