import { createRandom } from "../base/random.ts";
import type { Device, DeviceBuffer } from "../device/device.ts";
import { mlaDecodeWorkspaceBytes } from "../kernels/common/mla-partials.ts";
import { fillRandom } from "./gpu-memory.ts";

/** Widths of DeepSeek-V2's and V3's attention. */
export const layerWidths = { latentWidth: 512, ropeWidth: 64, nopeWidth: 128, valueWidth: 128 } as const;
/** Values of a cached entry. */
export const ENTRY = layerWidths.latentWidth + layerWidths.ropeWidth;
/** Values of a head's query before it is absorbed. */
export const QUERY = layerWidths.nopeWidth + layerWidths.ropeWidth;
/** Rows of a head in the key and value projection. */
export const KV_ROWS = layerWidths.nopeWidth + layerWidths.valueWidth;
/** Tokens of a page. */
export const PAGE = 64;
/** Layers that the calls of a graph go round, each with its own weights and cache: none is warm. */
export const LAYERS = 16;

/** A shape: every sequence has `length` cached tokens, the new one included. */
export interface GpuLayerShape {
  readonly heads: number;
  readonly batch: number;
  readonly length: number;
}

/** What one layer has of its own: W_UK and W_UV together, and its cache. */
export interface Layer {
  readonly kvB: DeviceBuffer;
  readonly cache: DeviceBuffer;
}

/** Memory of one shape on a device. */
export class LayerMemory {
  readonly held: DeviceBuffer[] = [];
  readonly layers: Layer[] = [];
  readonly inputs;

  private constructor(
    readonly device: Device,
    readonly shape: GpuLayerShape,
  ) {
    const { heads, batch, length } = shape;
    const pages = Math.ceil(length / PAGE);
    const order = createRandom(7).permutation(batch * pages);
    const slots = Int32Array.from({ length: batch }, (_, b) => {
      return order[b * pages + pages - 1]! * PAGE + ((length - 1) % PAGE);
    });
    const sizes = { ...layerWidths, heads, batch, sQ: 1, maxLen: length };
    this.inputs = {
      sizes,
      order,
      slots,
      pages,
      q: this.reserve("q", batch * heads * QUERY * 4),
      latent: this.reserve("latent", batch * ENTRY * 4),
      rotary: this.reserve("rotary table", layerWidths.ropeWidth * 4),
      normWeight: this.upload("norm", new Float32Array(layerWidths.latentWidth).fill(1)),
      positions: this.upload("positions", new Int32Array(batch)),
      slotBuffer: this.upload("slots", slots),
      table: this.upload("table", order),
      lengths: this.upload("lengths", new Int32Array(batch).fill(length)),
      rowCount: this.upload("row count", new Int32Array([batch])),
      rotated: this.reserve("rotated queries", batch * heads * QUERY * 2),
      absorbed: this.reserve("absorbed", batch * heads * ENTRY * 2),
      attended: this.reserve("attended", batch * heads * layerWidths.latentWidth * 2),
      lse: this.reserve("lse", batch * heads * 4),
      values: this.reserve("values", batch * heads * layerWidths.valueWidth * 4),
      workspace: this.reserve("workspace", mlaDecodeWorkspaceBytes(sizes)),
    };
  }

  static async create(device: Device, shape: GpuLayerShape): Promise<LayerMemory> {
    const memory = new LayerMemory(device, shape);
    const { q, latent, rotary, order } = memory.inputs;
    const random = createRandom(8);
    device.write(q, random.normals(q.bytes / 4));
    device.write(latent, random.normals(latent.bytes / 4));
    device.write(rotary, random.normals(layerWidths.ropeWidth));
    for (let i = 0; i < LAYERS; i++) {
      const kvB = memory.reserve("kv_b", shape.heads * KV_ROWS * layerWidths.latentWidth * 2);
      const cache = memory.reserve("cache", order.length * PAGE * ENTRY * 2);
      await fillRandom(device, kvB, 100 + i, 0.08);
      await fillRandom(device, cache, 200 + i, 1);
      memory.layers.push({ kvB, cache });
    }
    return memory;
  }

  reserve(label: string, bytes: number): DeviceBuffer {
    const buffer = this.device.allocate(bytes, label);
    this.held.push(buffer);
    return buffer;
  }

  upload(label: string, data: ArrayBufferView): DeviceBuffer {
    const buffer = this.reserve(label, data.byteLength);
    this.device.write(buffer, data);
    return buffer;
  }

  free(): void {
    for (const buffer of this.held) buffer.free();
  }
}
