import { errorMessage, UserError } from "../../base/errors.ts";
import type { Device } from "../../device/device.ts";
import { median } from "../run.ts";
import { CompareArena } from "./arena.ts";
import {
  type CompareCell,
  cacheBytesOf,
  makeAttentionBuffers,
  makeAttentionLayer,
  recordAttention,
} from "./attention.ts";
import { leastBytes, makeDecoder, recordDecoder } from "./decoder.ts";
import { type CompareForm, type CompareFormId, type CompareShape, compareForms } from "./shapes.ts";

/** One layer's attention, or the whole model from token ids to logits. */
export type CompareScope = "attention" | "model";

/** What became of a row: measured, or why not. */
export type CompareOutcome =
  | {
      readonly status: "measured";
      /** Median time of a step, which gives every sequence one token: what each of them waits. */
      readonly milliseconds: number;
      /** Of all sequences together. */
      readonly tokensPerSecond: number;
      /** Device memory in use while it ran. */
      readonly peakBytes: number;
      readonly runs: number;
    }
  | { readonly status: "no memory" | "no time" | "interrupted"; readonly reason: string };

/** One form at one context and batch. */
export interface CompareRow extends CompareCell {
  readonly scope: CompareScope;
  readonly form: CompareFormId;
  /** Of all layers that the scope runs: arithmetic, so it is known for rows that were not measured too. */
  readonly cacheBytes: number;
  readonly outcome: CompareOutcome;
}

/** What {@link runCompare} measures. */
export interface CompareOptions {
  readonly device: Device;
  readonly shape: CompareShape;
  readonly scopes: readonly CompareScope[];
  readonly contexts: readonly number[];
  readonly batches: readonly number[];
  /** Default: all. */
  readonly forms?: readonly CompareForm[];
  /** Seconds after which no further row is begun. */
  readonly seconds: number;
  /** Rows not begun when it aborts are marked. */
  readonly signal?: AbortSignal | undefined;
  /** Called with every row as it is done. */
  readonly onRow?: (row: CompareRow, done: number, total: number) => void;
}

/** Runs timed of a row: at least, and as many as fit into the time. */
const LEAST_RUNS = 3;
const MOST_RUNS = 25;
const ROW_MS = 400;
/** A row whose one run takes this long is not repeated. */
const LONG_MS = 2500;

const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(bytes < 1e10 ? 2 : 1)} GB`;

/** Median time of a program's runs after one that warms it up; ends early when `isOver` says so. */
async function timeRuns(run: () => Promise<number>, isOver: () => boolean): Promise<number[]> {
  const first = await run();
  if (first > LONG_MS) return [first];
  const times: number[] = [];
  let spent = 0;
  while (times.length < LEAST_RUNS || (spent < ROW_MS && times.length < MOST_RUNS)) {
    const milliseconds = await run();
    times.push(milliseconds);
    spent += milliseconds;
    if (isOver()) break;
  }
  return times;
}

async function measureRow(
  options: CompareOptions,
  scope: CompareScope,
  form: CompareForm,
  cell: CompareCell,
  isOver: () => boolean,
): Promise<CompareOutcome> {
  const { device, shape } = options;
  const arena = new CompareArena(device);
  try {
    const record = prepareRow(arena, shape, scope, form, cell);
    const program = device.record(record);
    try {
      const peakBytes = device.memory.usedBytes;
      const times = await timeRuns(() => program.time(), isOver);
      const milliseconds = median(times);
      const tokensPerSecond = (1000 * cell.batch) / milliseconds;
      return { status: "measured", milliseconds, tokensPerSecond, peakBytes, runs: times.length };
    } finally {
      program.free();
    }
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    return { status: "no memory", reason: errorMessage(error) };
  } finally {
    arena.free();
  }
}

function prepareRow(
  arena: CompareArena,
  shape: CompareShape,
  scope: CompareScope,
  form: CompareForm,
  cell: CompareCell,
): Parameters<Device["record"]>[0] {
  if (scope === "model") {
    const decoder = makeDecoder(arena, shape, form, cell);
    return (launch) => recordDecoder(launch, shape, form, cell, decoder);
  }
  const layer = makeAttentionLayer(arena, shape, form, cell);
  const buffers = makeAttentionBuffers(arena, shape, form, cell);
  return (launch) => recordAttention(launch, shape, form, cell, buffers, layer);
}

/** Why a row is not begun, or null. */
function refuse(
  options: CompareOptions,
  scope: CompareScope,
  form: CompareForm,
  cell: CompareCell,
  deadline: number,
): CompareOutcome | null {
  const { device, shape, signal, seconds } = options;
  if (signal?.aborted === true) return { status: "interrupted", reason: "the run was interrupted before it" };
  const wanted = leastBytes(scope, shape, form, cell);
  const { memoryBytes } = device.limits;
  if (wanted > memoryBytes) {
    const reason = `needs ${gigabytes(wanted)} and the device has ${gigabytes(memoryBytes)}`;
    return { status: "no memory", reason };
  }
  if (performance.now() < deadline) return null;
  return { status: "no time", reason: `the run's ${seconds} seconds were over before it` };
}

/**
 * Measures every form at every context and batch, forms side by side and cheap cells first, and never leaves a row out: one
 * that does not fit the device or the time, or comes after an interruption, says so. Throws TypeError or RangeError for
 * shapes that the kernels do not take.
 */
export async function runCompare(options: CompareOptions): Promise<CompareRow[]> {
  const { shape, scopes, signal, forms = compareForms, onRow } = options;
  const deadline = performance.now() + 1000 * options.seconds;
  const isOver = () => signal?.aborted === true || performance.now() > deadline;
  const cells = scopes.flatMap((scope) => {
    const all = options.contexts.flatMap((context) => options.batches.map((batch) => ({ context, batch })));
    const sorted = all.sort((a, b) => a.context * a.batch - b.context * b.batch || a.context - b.context);
    return sorted.map((cell) => ({ scope, cell }));
  });
  const rows: CompareRow[] = [];
  for (const { scope, cell } of cells) {
    for (const form of forms) {
      const layers = scope === "model" ? shape.layers : 1;
      const outcome =
        refuse(options, scope, form, cell, deadline) ??
        (await measureRow(options, scope, form, cell, isOver));
      const cacheBytes = cacheBytesOf(shape, form, cell, layers);
      const row = { ...cell, scope, form: form.id, cacheBytes, outcome };
      rows.push(row);
      onRow?.(row, rows.length, cells.length * forms.length);
      // Signals reach a busy process between rows.
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  }
  return rows;
}
