import { InvalidArgumentError } from "commander";
import { runFullHeadsBench } from "../../bench/full-heads-bench.ts";
import { FULL_HEADS_PRESET, presetConfig } from "../../bench/model-presets.ts";
import { createDeviceReport, formatFlops, threeDigits, writeReport } from "../../bench/report.ts";
import { type DecodeCell, runShapeBench, type ShapeBenchResult } from "../../bench/shape-bench.ts";
import { openFlaggedDevice } from "../device-choice.ts";
import { formatBytes, formatTable, note, paint, printJson, printLine } from "../output.ts";

/** Flags of `bench model --shape`. */
export interface BenchShapeFlags {
  readonly shape: string;
  readonly device?: string;
  readonly threads?: number;
  readonly exact?: boolean;
  readonly cells: readonly DecodeCell[];
  readonly prefill: number;
  readonly chunk: number;
  readonly steps: number;
  readonly out?: string;
  readonly name: string;
  readonly json?: boolean;
}

const MOST_SEQUENCES = 2 ** 16;
const MOST_TOKENS = 2 ** 31;
const isCount = (value: number, most: number) => value >= 1 && value <= most;

/** Parses `1x4096,8x4096`. */
export function cellsFlag(text: string): DecodeCell[] {
  return text.split(",").map((cell) => {
    const [, batch, cachedTokens] = cell.match(/^(\d+)x(\d+)$/) ?? [];
    if (isCount(Number(batch), MOST_SEQUENCES) && isCount(Number(cachedTokens), MOST_TOKENS)) {
      return { batch: Number(batch), cachedTokens: Number(cachedTokens) };
    }
    throw new InvalidArgumentError(
      `Expected pairs of batch (to ${MOST_SEQUENCES}) and cached tokens (to ${MOST_TOKENS}), such as 1x4096,8x4096.`,
    );
  });
}

function printResult({ decode, prefill, ceilings, memory }: ShapeBenchResult): void {
  const share = (fraction: number | null) => (fraction === null ? "" : `${(100 * fraction).toFixed(0)} %`);
  const rows = decode.map((row) => [
    `decode ${row.batch} × ${row.cachedTokens}`,
    threeDigits(row.milliseconds),
    row.tokensPerSecond.toFixed(1),
    `${threeDigits(row.gigabytesPerSecond)} GB/s`,
    share(row.fractionOfRead),
  ]);
  if (prefill !== null) {
    const { tokens, milliseconds, tokensPerSecond, teraflops } = prefill;
    const speed = formatFlops(teraflops * 1e12);
    rows.push([`prefill ${tokens}`, threeDigits(milliseconds), tokensPerSecond.toFixed(0), speed, ""]);
  }
  const head = ["work", "ms", "tokens/s", "rate", "of read ceiling"];
  const [first = "", ...lines] = formatTable([head, ...rows]).split("\n");
  printLine([paint.bold(first), ...lines, ""].join("\n"));
  if (ceilings !== null) printLine(`reads ${(ceilings.bytesPerSecond / 1e9).toFixed(0)} GB/s at most`);
  const { weightBytes, cacheBytes, cacheBytesPerToken, peakBytes } = memory;
  printLine(
    `weights ${formatBytes(weightBytes)}, cache ${formatBytes(cacheBytes)} (${formatBytes(cacheBytesPerToken)} a token), ` +
      `the device at most ${formatBytes(peakBytes)}`,
  );
}

/** `flashmla bench model --shape`: a model of random weights. */
export async function benchShape(
  flags: BenchShapeFlags,
  version: string,
  signal: AbortSignal,
): Promise<void> {
  const isFull = flags.shape === FULL_HEADS_PRESET;
  const config = isFull ? null : presetConfig(flags.shape);
  const { device } = await openFlaggedDevice(flags);
  try {
    const onPart = (part: string) => {
      signal.throwIfAborted();
      note(part);
    };
    const options = { ...flags, onPart, signal };
    const measured =
      config === null
        ? await runFullHeadsBench(device, options)
        : await runShapeBench(device, config, options);
    const about = { name: flags.name, shape: flags.shape, device: device.name };
    const report = createDeviceReport({ ...about, ...measured }, version, device);
    if (!flags.json) printResult(measured);
    if (flags.out !== undefined) note(`Written to ${await writeReport(report, flags.out)}`);
    printJson(report);
  } finally {
    await device.close();
  }
}
