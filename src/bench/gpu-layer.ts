import { decodeToF32 } from "../base/convert.ts";
import { createRandom } from "../base/random.ts";
import type { Device, DeviceBuffer, Launch, Program } from "../device/device.ts";
import { mlaDecodeWorkspaceBytes } from "../kernels/common/mla-partials.ts";
import { mlaDecode } from "../kernels/mla-decode/mla-decode.ts";
import { mlaRowReference } from "../kernels/mla-decode/reference.ts";
import { mlaEpilogue } from "../kernels/mla-epilogue/mla-epilogue.ts";
import { mlaPrologue } from "../kernels/mla-prologue/mla-prologue.ts";
import { mlaPrologueReference } from "../kernels/mla-prologue/reference.ts";
import { fillRandom, timeRuns } from "./gpu-memory.ts";

const widths = { latentWidth: 512, ropeWidth: 64, nopeWidth: 128, valueWidth: 128 } as const;
const ENTRY = widths.latentWidth + widths.ropeWidth;
const QUERY = widths.nopeWidth + widths.ropeWidth;
const KV_ROWS = widths.nopeWidth + widths.valueWidth;
const PAGE = 64;
/** Layers that the calls of a graph go round, each with its own weights and cache: none is warm. */
const LAYERS = 16;
const CALLS = 32;
/** Runs before the first timed one: truths are computed on the processor meanwhile, and an idle GPU slows down. */
const WARM_RUNS = 20;
const EPSILON = 1e-6;
const SOFTMAX_SCALE = QUERY ** -0.5;
/** Largest error against float64 that passes, of the largest value: everything between the stages is bf16. */
const TOLERANCE = 3e-2;

/** A shape: every sequence has `length` cached tokens, the new one included. */
export interface GpuLayerShape {
  readonly heads: number;
  readonly batch: number;
  readonly length: number;
}

/** Microseconds of a layer's attention within a graph of many, and of its stages each in a graph of its own. */
export interface GpuLayerResult extends GpuLayerShape {
  readonly microseconds: number;
  readonly prologue: number;
  readonly decode: number;
  readonly epilogue: number;
  /** Bytes that must be read: both projections and the cache. */
  readonly bytes: number;
  readonly worstError: number;
}

/** Bytes of W_UK, W_UV and the cached entries in bf16. */
export function gpuLayerBytes({ heads, batch, length }: GpuLayerShape): number {
  return 2 * (heads * KV_ROWS * widths.latentWidth + batch * length * ENTRY);
}

/** What one layer has of its own. */
interface Layer {
  readonly kvB: DeviceBuffer;
  readonly cache: DeviceBuffer;
}

/** Memory of one shape on a device. */
class LayerMemory {
  readonly held: DeviceBuffer[] = [];
  readonly layers: Layer[] = [];
  readonly inputs;

  private constructor(
    readonly device: Device,
    readonly shape: GpuLayerShape,
  ) {
    const { heads, batch, length } = shape;
    const pages = Math.ceil(length / PAGE);
    const random = createRandom(7);
    const order = Int32Array.from({ length: batch * pages }, (_, i) => i);
    for (let i = order.length - 1; i > 0; i--) {
      const j = random.integer(i + 1);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    const slots = Int32Array.from({ length: batch }, (_, b) => {
      return order[b * pages + pages - 1]! * PAGE + ((length - 1) % PAGE);
    });
    const sizes = { ...widths, heads, batch, sQ: 1, maxLen: length };
    this.inputs = {
      sizes,
      order,
      slots,
      pages,
      q: this.reserve("q", batch * heads * QUERY * 4),
      latent: this.reserve("latent", batch * ENTRY * 4),
      rotary: this.reserve("rotary table", widths.ropeWidth * 4),
      normWeight: this.upload("norm", new Float32Array(widths.latentWidth).fill(1)),
      positions: this.upload("positions", new Int32Array(batch)),
      slotBuffer: this.upload("slots", slots),
      table: this.upload("table", order),
      lengths: this.upload("lengths", new Int32Array(batch).fill(length)),
      rowCount: this.upload("row count", new Int32Array([batch])),
      absorbed: this.reserve("absorbed", batch * heads * ENTRY * 2),
      attended: this.reserve("attended", batch * heads * widths.latentWidth * 2),
      lse: this.reserve("lse", batch * heads * 4),
      values: this.reserve("values", batch * heads * widths.valueWidth * 4),
      workspace: this.reserve("workspace", mlaDecodeWorkspaceBytes(sizes)),
    };
  }

  static async create(device: Device, shape: GpuLayerShape): Promise<LayerMemory> {
    const memory = new LayerMemory(device, shape);
    const { q, latent, rotary, order } = memory.inputs;
    const random = createRandom(8);
    device.write(q, random.normals(q.bytes / 4));
    device.write(latent, random.normals(latent.bytes / 4));
    device.write(rotary, random.normals(widths.ropeWidth));
    for (let i = 0; i < LAYERS; i++) {
      const kvB = memory.reserve("kv_b", shape.heads * KV_ROWS * widths.latentWidth * 2);
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

const stages = {
  prologue(launch: Launch, { inputs, shape }: LayerMemory, { kvB, cache }: Layer): void {
    const { sizes, q, latent, normWeight, positions, rotary, slotBuffer, absorbed, rowCount } = inputs;
    mlaPrologue(launch, {
      ...{ ...sizes, phase: "decode", q, latent, normWeight, epsilon: EPSILON, positions, rowCount },
      ...{ rotaryTable: rotary, rotary: "interleaved", queryScale: null, slots: slotBuffer },
      kvB: { buffer: kvB, dtype: "bf16", rows: shape.heads * KV_ROWS, columns: widths.latentWidth },
      cache: { buffer: cache, dtype: "bf16", pageSize: PAGE },
      ...{ qOut: absorbed, qOutDtype: "bf16", maxRows: shape.batch },
    });
  },
  decode(launch: Launch, { inputs }: LayerMemory, { cache }: Layer): void {
    const { sizes, absorbed: q, table, pages, lengths, attended, lse, workspace } = inputs;
    mlaDecode(launch, {
      ...{ ...sizes, q, qDtype: "bf16", blockTable: table, maxPages: pages, cacheSeqlens: lengths },
      ...{ mask: "causal", cache: { buffer: cache, dtype: "bf16", pageSize: PAGE }, workspace },
      ...{ softmaxScale: SOFTMAX_SCALE, out: attended, outDtype: "bf16", lse },
    });
  },
  epilogue(launch: Launch, { inputs, shape }: LayerMemory, { kvB }: Layer): void {
    const { sizes, attended, values: out } = inputs;
    mlaEpilogue(launch, {
      ...{ ...sizes, attended, attendedDtype: "bf16", out },
      kvB: { buffer: kvB, dtype: "bf16", rows: shape.heads * KV_ROWS, columns: widths.latentWidth },
    });
  },
} as const;

type Stage = keyof typeof stages;

function record(memory: LayerMemory, wanted: readonly Stage[], calls: number): Program {
  return memory.device.record((launch) => {
    for (let call = 0; call < calls; call++) {
      for (const stage of wanted) stages[stage](launch, memory, memory.layers[call % LAYERS]!);
    }
  });
}

/** Float64 values [valueWidth] of the first layer's last head of the last sequence, the new entry rounded as it is stored. */
async function truthOf(memory: LayerMemory): Promise<Float64Array> {
  const { device, shape, inputs } = memory;
  const { kvB, cache } = memory.layers[0]!;
  const { heads, batch, length } = shape;
  const bf16 = async (buffer: DeviceBuffer, first: number, count: number) =>
    decodeToF32(new Uint8Array(await device.read(buffer, first * 2, count * 2)), "bf16");
  const floats = async (buffer: DeviceBuffer, first: number, count: number) =>
    new Float32Array(await device.read(buffer, first * 4, count * 4));
  const weights = await bf16(kvB, (heads - 1) * KV_ROWS * widths.latentWidth, KV_ROWS * widths.latentWidth);
  const { queries } = mlaPrologueReference({
    ...{ ...widths, heads: 1, rows: 1, phase: "decode", rotary: "interleaved", queryScale: null },
    ...{ epsilon: EPSILON, kvB: weights, positions: [0], normWeight: new Float32Array(512).fill(1) },
    q: await floats(inputs.q, (batch * heads - 1) * QUERY, QUERY),
    latent: await floats(inputs.latent, (batch - 1) * ENTRY, ENTRY),
    rotaryTable: await floats(inputs.rotary, 0, widths.ropeWidth),
  });
  const tokens: Float32Array[] = [];
  for (const page of inputs.order.subarray((batch - 1) * inputs.pages)) {
    const values = await bf16(cache, page * PAGE * ENTRY, PAGE * ENTRY);
    for (let t = 0; t < PAGE; t++) tokens.push(values.subarray(t * ENTRY, (t + 1) * ENTRY));
  }
  const { out } = mlaRowReference({
    ...{ query: queries[0]![0]!, tokens: tokens.slice(0, length) },
    ...{ latentWidth: widths.latentWidth, softmaxScale: SOFTMAX_SCALE },
  });
  return Float64Array.from({ length: widths.valueWidth }, (_, v) => {
    const row = (widths.nopeWidth + v) * widths.latentWidth;
    return out.reduce((sum, value, c) => sum + value * weights[row + c]!, 0);
  });
}

/** The largest error of that row, of its largest value. */
async function check(memory: LayerMemory): Promise<number> {
  const program = record(memory, ["prologue", "decode", "epilogue"], 1);
  program.run();
  await program.idle();
  program.free();
  const { values } = memory.inputs;
  const actual = new Float32Array(
    await memory.device.read(values, values.bytes - widths.valueWidth * 4, widths.valueWidth * 4),
  );
  const truth = await truthOf(memory);
  const largest = truth.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return truth.reduce(
    (worst, value, i) => Math.max(worst, Math.abs(actual[i]! - value) / largest || Number.NaN),
    0,
  );
}

/**
 * Checks the attention layer of a shape against float64, then times it from projections to the heads' values: absorb, rotary,
 * norm, append, attention, merge and W_UV; weights and caches go round 16 layers. Throws RangeError when it is wrong.
 */
export async function measureGpuLayer(
  device: Device,
  shape: GpuLayerShape,
  rounds: number,
): Promise<GpuLayerResult> {
  const memory = await LayerMemory.create(device, shape);
  try {
    const worstError = await check(memory);
    if (!(worstError <= TOLERANCE)) {
      throw new RangeError(`the layer of ${JSON.stringify(shape)} is wrong: error ${worstError}`);
    }
    const time = async (wanted: readonly Stage[]) => {
      const program = record(memory, wanted, CALLS);
      for (let i = 0; i < WARM_RUNS; i++) program.run();
      const times = await timeRuns(program, rounds);
      program.free();
      return (times[rounds >> 1]! * 1e3) / CALLS;
    };
    const microseconds = await time(["prologue", "decode", "epilogue"]);
    const [prologue, decode, epilogue] = [
      await time(["prologue"]),
      await time(["decode"]),
      await time(["epilogue"]),
    ];
    return { ...shape, microseconds, prologue, decode, epilogue, bytes: gpuLayerBytes(shape), worstError };
  } finally {
    memory.free();
  }
}
