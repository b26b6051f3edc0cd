import { Presets, SingleBar } from "cli-progress";
import { formatBytes, note } from "./output.ts";

/** Shows how far a long task is. */
export interface Progress {
  update(done: number, total: number): void;
  /** Removes the bar. */
  stop(): void;
}

/** What is counted, for people. */
export type ProgressUnit = "bytes" | "tokens" | "cases";

/** A task shorter than this shows nothing. */
const QUIET_MS = 1000;
/** Without a terminal, a line each this often. */
const LINE_MS = 5000;

const format = (value: number, unit: ProgressUnit) => (unit === "bytes" ? formatBytes(value) : String(value));

function makeBar(label: string, unit: ProgressUnit): SingleBar {
  const form = `${label} {bar} {percentage}% {shown} of {all}, {eta_formatted} left`;
  const options = { format: form, stream: process.stderr, clearOnComplete: true, hideCursor: true };
  return new SingleBar(
    {
      ...{ ...options, etaBuffer: 50 },
      formatValue: (value, _, kind) => (kind === "percentage" ? String(value) : format(value, unit)),
    },
    Presets.shades_classic,
  );
}

/**
 * A progress display on standard error that appears once the task has taken a second: a bar on a terminal, else a line
 * every five seconds.
 */
export function startProgress(label: string, unit: ProgressUnit): Progress {
  const start = performance.now();
  const isTerminal = process.stderr.isTTY === true;
  let bar: SingleBar | undefined;
  let shownAt = start;
  return {
    update(done, total) {
      const now = performance.now();
      if (now - start < QUIET_MS) return;
      if (!isTerminal) {
        if (now - shownAt < LINE_MS) return;
        shownAt = now;
        return note(`${label}: ${format(done, unit)} of ${format(total, unit)}`);
      }
      const payload = { shown: format(done, unit), all: format(total, unit) };
      if (bar) return bar.update(done, payload);
      bar = makeBar(label, unit);
      bar.start(total, done, payload);
    },
    stop() {
      bar?.stop();
    },
  };
}
