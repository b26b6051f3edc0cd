import { errorMessage, UserError } from "../../base/errors.ts";
import type { Device, Launch } from "../../device/device.ts";
import { bestCeilings, type CeilingSource } from "../device-ceilings.ts";
import { median } from "../run.ts";
import { CompareArena } from "./arena.ts";
import { recordAttention, recordAttentionKernel } from "./attention.ts";
import {
  type CompareCell,
  coldLayers,
  makeAttentionBuffers,
  makeAttentionLayer,
} from "./attention-buffers.ts";
import { makeDecoder, recordDecoder } from "./decoder.ts";
import type { CompareOutcome, CompareScope, MeasuredOutcome } from "./rows.ts";
import type { CompareForm, CompareShape } from "./shapes.ts";

/** One row to measure. */
export interface RowTask {
  readonly device: Device;
  readonly shape: CompareShape;
  readonly scope: CompareScope;
  readonly form: CompareForm;
  readonly cell: CompareCell;
  /** For rows of one layer's attention. */
  readonly ceilings: CeilingSource | null;
  /** Whether to end early, with what has been timed. */
  readonly isOver: () => boolean;
}

/** Runs timed of a row: at least, and as many as fit into the time. */
const LEAST_RUNS = 3;
const MOST_RUNS = 15;
const ROW_MS = 400;
const KERNEL_MS = 200;
/** A row whose one run takes this long is not repeated. */
const LONG_MS = 2500;

/** Times of runs after one that warms up. */
async function timeRuns(
  device: Device,
  step: (launch: Launch) => void,
  wanted: number,
  isOver: () => boolean,
) {
  const program = device.record(step);
  try {
    const { usedBytes } = device.memory;
    const first = await program.time();
    const times = first > LONG_MS ? [first] : [];
    let spent = 0;
    while (first <= LONG_MS && (times.length < LEAST_RUNS || (spent < wanted && times.length < MOST_RUNS))) {
      const milliseconds = await program.time();
      times.push(milliseconds);
      spent += milliseconds;
      if (isOver()) break;
    }
    return { times, usedBytes };
  } finally {
    program.free();
  }
}

async function measureModel(arena: CompareArena, task: RowTask): Promise<MeasuredOutcome> {
  const { device, shape, form, cell, isOver } = task;
  const decoder = makeDecoder(arena, shape, form, cell);
  const step = (launch: Launch) => recordDecoder(launch, shape, form, cell, decoder);
  const { times, usedBytes: peakBytes } = await timeRuns(device, step, ROW_MS, isOver);
  const milliseconds = median(times);
  const tokensPerSecond = (1000 * cell.batch) / milliseconds;
  return { status: "measured", milliseconds, tokensPerSecond, peakBytes, runs: times.length };
}

/** Runs over the caches of several layers, so that each is read from memory as in a model; the memory told is one's. */
async function measureAttention(arena: CompareArena, task: RowTask): Promise<MeasuredOutcome> {
  const { device, shape, form, cell, isOver, ceilings } = task;
  const { usedBytes: heldBefore } = device.memory;
  const buffers = makeAttentionBuffers(arena, shape, form, cell);
  const first = makeAttentionLayer(arena, shape, form, cell);
  const { usedBytes: ofOne } = device.memory;
  const others = Array.from({ length: coldLayers(shape, form, cell) - 1 }, () =>
    makeAttentionLayer(arena, shape, form, cell),
  );
  const ofOthers = device.memory.usedBytes - ofOne;
  const layers = [first, ...others];
  const timed = (record: typeof recordAttention, wanted: number) => {
    const step = (launch: Launch) => {
      for (const layer of layers) record(launch, { shape, form, cell, buffers, layer });
    };
    return timeRuns(device, step, wanted, isOver);
  };
  const { times, usedBytes } = await timed(recordAttention, ROW_MS);
  const before = ceilings?.measure() ?? null;
  const kernel = await timed(recordAttentionKernel, KERNEL_MS);
  const after = ceilings?.measure() ?? null;
  const milliseconds = median(times) / layers.length;
  return {
    ...{ status: "measured", milliseconds, tokensPerSecond: (1000 * cell.batch) / milliseconds },
    ...{ peakBytes: usedBytes - ofOthers - heldBefore, runs: times.length },
    ...{ kernelMilliseconds: Math.min(...kernel.times) / layers.length },
    ceilings: bestCeilings(before, after),
  };
}

/** Measures a row and gives its memory back; what goes wrong is the outcome. */
export async function measureRow(task: RowTask): Promise<CompareOutcome> {
  const arena = new CompareArena(task.device);
  try {
    return await (task.scope === "model" ? measureModel(arena, task) : measureAttention(arena, task));
  } catch (error) {
    return { status: error instanceof UserError ? "no memory" : "failed", reason: errorMessage(error) };
  } finally {
    arena.free();
  }
}
