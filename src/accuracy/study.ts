import { errorMessage } from "../base/errors.ts";
import type { Device, DeviceKind } from "../device/device.ts";
import type { LatentDtype } from "../kernels/common/latent-cache.ts";
import { type Accumulator, accumulationErrors, accumulators } from "./accumulation.ts";
import { attentionTruth } from "./attention-truth.ts";
import { type AttentionError, measureAttention } from "./measure-attention.ts";
import { createStream, type StreamName, type StreamShape } from "./streams.ts";

/** What is studied. */
export interface StudyOptions {
  /** Each is measured on the same contexts. */
  readonly devices: readonly Device[];
  /** Context lengths, ascending. */
  readonly lengths: readonly number[];
  readonly streams: readonly StreamName[];
  readonly dtypes: readonly LatentDtype[];
  readonly widths: Omit<StreamShape, "length" | "seed">;
  /** Contexts that would not be done by then, by `performance.now()`, are left out and named. */
  readonly deadline: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (doneTokens: number, totalTokens: number) => void;
}

/** The error of one cache format on one context and device. */
export interface AttentionRow extends AttentionError {
  readonly device: DeviceKind;
  readonly stream: StreamName;
  readonly length: number;
  readonly dtype: LatentDtype;
}

/** The error of one way of adding up on one context. */
export interface AccumulationRow {
  readonly stream: StreamName;
  readonly length: number;
  readonly accumulator: Accumulator;
  readonly error: number;
}

/** What was measured, and what was not, with the reason. */
export interface Study {
  readonly attention: readonly AttentionRow[];
  readonly accumulation: readonly AccumulationRow[];
  readonly skipped: readonly { readonly what: string; readonly reason: string }[];
}

/** Streams on which ways of adding up are compared: the others say nothing more about sums. */
const summed: readonly StreamName[] = ["realistic", "all equal"];
const SEED = 7;
const STOPPED = "stopped by Ctrl-C";

interface Rows {
  readonly attention: AttentionRow[];
  readonly accumulation: AccumulationRow[];
  readonly skipped: { what: string; reason: string }[];
}

async function studyContext(
  options: StudyOptions,
  stream: StreamName,
  length: number,
  rows: Rows,
  onPass: () => void,
): Promise<void> {
  const shape = { ...options.widths, length, seed: SEED };
  const context = createStream(stream, shape);
  const truth = attentionTruth(context, shape);
  onPass();
  for (const device of options.devices) {
    for (const dtype of options.dtypes) {
      if (options.signal?.aborted) {
        rows.skipped.push({ what: `${stream}, ${length} tokens, ${device.kind} ${dtype}`, reason: STOPPED });
        continue;
      }
      try {
        const error = await measureAttention(device, context, shape, dtype, truth);
        rows.attention.push({ device: device.kind, stream, length, dtype, ...error });
      } catch (error) {
        const what = `${stream}, ${length} tokens, ${device.kind} ${dtype}`;
        rows.skipped.push({ what, reason: errorMessage(error) });
      }
      onPass();
    }
  }
  if (!summed.includes(stream)) return;
  const errors = accumulationErrors(context, shape);
  for (const accumulator of accumulators) {
    rows.accumulation.push({ stream, length, accumulator, error: errors[accumulator] });
  }
}

/** Why a context of `length` tokens is not begun, or null; `pace` is the best so far, in milliseconds a token. */
function reasonToStop({ signal, deadline }: StudyOptions, length: number, pace: number): string | null {
  if (signal?.aborted) return STOPPED;
  const left = deadline - performance.now();
  if (left < 0) return "the time limit was reached; raise --time-limit";
  if (pace * length <= left) return null;
  const [wanted, rest] = [pace * length, left].map((milliseconds) => Math.round(milliseconds / 1000));
  return `it takes ${wanted} s at the pace of the others and the time limit leaves ${rest}; raise --time-limit`;
}

/**
 * Measures every stream at every length with every cache format on every device, short contexts first. What does not fit the device, or the time,
 * or has no kernel is named in `skipped`; what was finished before is kept.
 */
export async function runStudy(options: StudyOptions): Promise<Study> {
  const { lengths, streams, dtypes, devices, onProgress } = options;
  const rows: Rows = { attention: [], accumulation: [], skipped: [] };
  const passes = streams.length * (devices.length * dtypes.length + 1);
  const total = lengths.reduce((sum, length) => sum + length, 0) * passes;
  let [done, pace] = [0, Number.POSITIVE_INFINITY];
  for (const length of lengths) {
    for (const stream of streams) {
      // Signals and the progress display get their turn.
      await new Promise((resolve) => setImmediate(resolve));
      const reason = reasonToStop(options, length, pace === Number.POSITIVE_INFINITY ? 0 : pace);
      if (reason !== null) {
        rows.skipped.push({ what: `${stream}, ${length} tokens`, reason });
        continue;
      }
      const start = performance.now();
      await studyContext(options, stream, length, rows, () => {
        done += length;
        onProgress?.(done, total);
      });
      pace = Math.min(pace, (performance.now() - start) / length);
    }
  }
  return rows;
}
