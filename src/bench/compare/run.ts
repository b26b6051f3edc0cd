import type { Device } from "../../device/device.ts";
import { openCeilings } from "../device-ceilings.ts";
import type { CompareCell } from "./attention-buffers.ts";
import { cacheBytesOf, checkCompareSizes } from "./attention-buffers.ts";
import { leastBytes } from "./decoder.ts";
import { measureRow } from "./measure-row.ts";
import type { CompareOutcome, CompareRow, CompareScope } from "./rows.ts";
import { type CompareForm, type CompareShape, compareForms } from "./shapes.ts";

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

const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(bytes < 1e10 ? 2 : 1)} GB`;

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
  if (wanted + device.memory.usedBytes > memoryBytes) {
    const reason = `needs ${gigabytes(wanted)} and the device has ${gigabytes(memoryBytes)}`;
    return { status: "no memory", reason };
  }
  if (performance.now() < deadline) return null;
  return { status: "no time", reason: `the run's ${seconds} seconds were over before it` };
}

/**
 * Measures every form at every context and batch, forms side by side and cheap cells first, and never leaves a row out: one
 * that does not fit the device or the time, fails, or comes after an interruption, says so. Throws TypeError or RangeError for
 * shapes that the kernels do not take.
 */
export async function runCompare(options: CompareOptions): Promise<CompareRow[]> {
  const { shape, scopes, signal, forms = compareForms, onRow } = options;
  const deadline = performance.now() + 1000 * options.seconds;
  const isOver = () => signal?.aborted === true || performance.now() > deadline;
  const cells = [...scopes].sort().flatMap((scope) => {
    const all = options.contexts.flatMap((context) => options.batches.map((batch) => ({ context, batch })));
    const sorted = all.sort((a, b) => a.context * a.batch - b.context * b.batch || a.context - b.context);
    return sorted.map((cell) => ({ scope, cell }));
  });
  for (const form of forms) checkCompareSizes(shape, form);
  const rows: CompareRow[] = [];
  let ceilings = scopes.includes("attention") ? await openCeilings(options.device) : null;
  try {
    for (const { scope, cell } of cells) {
      if (scope === "model") {
        // Its memory may be what a whole model lacks.
        ceilings?.free();
        ceilings = null;
      }
      for (const form of forms) {
        const layers = scope === "model" ? shape.layers : 1;
        const task = { device: options.device, shape, scope, form, cell, ceilings, isOver };
        const outcome = refuse(options, scope, form, cell, deadline) ?? (await measureRow(task));
        const cacheBytes = cacheBytesOf(shape, form, cell, layers);
        const row = { ...cell, scope, form: form.id, cacheBytes, outcome };
        rows.push(row);
        onRow?.(row, rows.length, cells.length * forms.length);
        // Signals reach a busy process between rows.
        await new Promise((resolve) => setTimeout(resolve, 0));
      }
    }
  } finally {
    ceilings?.free();
  }
  return rows;
}
