import type { Device, Launch, Program } from "../device/device.ts";
import { mlaDecode } from "../kernels/mla-decode/mla-decode.ts";
import { mlaEpilogue } from "../kernels/mla-epilogue/mla-epilogue.ts";
import { mlaPrologue } from "../kernels/mla-prologue/mla-prologue.ts";
import { latentDecode } from "../models/latent-decode.ts";
import {
  ENTRY,
  type GpuLayerShape,
  KV_ROWS,
  LAYERS,
  type Layer,
  LayerMemory,
  layerWidths,
  PAGE,
} from "./gpu-layer-memory.ts";
import { layerConstants, layerTruth } from "./gpu-layer-truth.ts";
import { recordUnfused } from "./gpu-layer-unfused.ts";
import { timeRuns, warmUp } from "./gpu-memory.ts";

/** Microseconds of a layer's attention within a graph of many, and of its stages each in a graph of its own. */
export interface GpuLayerResult extends GpuLayerShape {
  readonly microseconds: number;
  /** The three stages one after the other, as launches that overlap. */
  readonly stages: number;
  readonly prologue: number;
  readonly decode: number;
  readonly epilogue: number;
  /** The same work as separate launches, with the projections by cuBLASLt. */
  readonly unfused: number;
  /** Of both projections and the cache, all of which must be read. */
  readonly bytes: number;
  readonly flops: number;
  readonly worstError: number;
}

/** FLOPs, and bytes of W_UK, W_UV and the cached entries in bf16. */
export function gpuLayerCost({ heads, batch, length }: GpuLayerShape): { flops: number; bytes: number } {
  const projections = heads * KV_ROWS * layerWidths.latentWidth;
  const attention = heads * length * (ENTRY + layerWidths.latentWidth);
  return { flops: 2 * batch * (projections + attention), bytes: 2 * (projections + batch * length * ENTRY) };
}

const CALLS = 32;
/** Largest error against float64 that passes, of the largest value: everything between the stages is bf16. */
const TOLERANCE = 3e-2;

const stages = {
  prologue(launch: Launch, { inputs, shape }: LayerMemory, { kvB, cache }: Layer): void {
    const { sizes, q, latent, normWeight, positions, rotary, slotBuffer, absorbed, rowCount } = inputs;
    mlaPrologue(launch, {
      ...{ ...sizes, phase: "decode", q, latent, normWeight, positions, rowCount },
      epsilon: layerConstants.epsilon,
      ...{ rotaryTable: rotary, rotary: "interleaved", queryScale: null, slots: slotBuffer },
      kvB: { buffer: kvB, dtype: "bf16", rows: shape.heads * KV_ROWS, columns: layerWidths.latentWidth },
      cache: { buffer: cache, dtype: "bf16", pageSize: PAGE },
      ...{ qOut: absorbed, qOutDtype: "bf16", maxRows: shape.batch },
    });
  },
  decode(launch: Launch, { inputs }: LayerMemory, { cache }: Layer): void {
    const { sizes, absorbed: q, table, pages, lengths, attended, lse, workspace } = inputs;
    mlaDecode(launch, {
      ...{ ...sizes, q, qDtype: "bf16", blockTable: table, maxPages: pages, cacheSeqlens: lengths },
      ...{ mask: "causal", cache: { buffer: cache, dtype: "bf16", pageSize: PAGE }, workspace },
      ...{ softmaxScale: layerConstants.softmaxScale, out: attended, outDtype: "bf16", lse },
    });
  },
  epilogue(launch: Launch, { inputs, shape }: LayerMemory, { kvB }: Layer): void {
    const { sizes, attended, values: out } = inputs;
    mlaEpilogue(launch, {
      ...{ ...sizes, attended, attendedDtype: "bf16", out },
      kvB: { buffer: kvB, dtype: "bf16", rows: shape.heads * KV_ROWS, columns: layerWidths.latentWidth },
    });
  },
} as const;

type Step = (launch: Launch, memory: LayerMemory, layer: Layer) => void;

/** The layer as models run it: in one launch where that is faster. */
const whole: Step = (launch, { inputs, shape }, { kvB, cache }) => {
  const { sizes, q, latent, normWeight, positions, rotary, slotBuffer, absorbed, rowCount } = inputs;
  const { table, pages, lengths, attended, lse, values, workspace } = inputs;
  latentDecode(launch, {
    ...{ ...sizes, ...layerConstants, q, latent, normWeight, positions, rowCount, absorbed, workspace },
    ...{ rotaryTable: rotary, rotary: "interleaved", queryScale: null, slots: slotBuffer, out: values },
    kvB: { buffer: kvB, dtype: "bf16", rows: shape.heads * KV_ROWS, columns: layerWidths.latentWidth },
    cache: { buffer: cache, dtype: "bf16", pageSize: PAGE },
    ...{ blockTable: table, maxPages: pages, cacheSeqlens: lengths, maxRows: shape.batch },
    ...{ dtype: "bf16", merged: { attended, lse } },
  });
};

const unfused: Step = (launch, memory, layer) =>
  recordUnfused(launch, memory, layer, () => stages.decode(launch, memory, layer));

function record(memory: LayerMemory, steps: readonly Step[], calls: number): Program {
  return memory.device.record((launch) => {
    for (let call = 0; call < calls; call++) {
      for (const step of steps) step(launch, memory, memory.layers[call % LAYERS]!);
    }
  });
}

/** The largest error of that row, of its largest value. */
async function check(memory: LayerMemory): Promise<number> {
  const program = record(memory, [whole], 1);
  program.run();
  await program.idle();
  program.free();
  const { values } = memory.inputs;
  const actual = new Float32Array(
    await memory.device.read(values, values.bytes - layerWidths.valueWidth * 4, layerWidths.valueWidth * 4),
  );
  const truth = await layerTruth(memory);
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
    const time = async (...steps: readonly Step[]) => {
      const program = record(memory, steps, CALLS);
      try {
        // The truth was computed on the processor meanwhile.
        await warmUp(program);
        const times = await timeRuns(program, rounds);
        return (times[rounds >> 1]! * 1e3) / CALLS;
      } finally {
        program.free();
      }
    };
    return {
      ...{ ...shape, ...gpuLayerCost(shape), worstError },
      microseconds: await time(whole),
      stages: await time(...Object.values(stages)),
      prologue: await time(stages.prologue),
      decode: await time(stages.decode),
      epilogue: await time(stages.epilogue),
      unfused: await time(unfused),
    };
  } finally {
    memory.free();
  }
}
