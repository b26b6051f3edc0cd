import { type Command, InvalidArgumentError } from "commander";
import { UserError } from "../../base/errors.ts";
import { type ModelBenchResult, runModelBench } from "../../bench/model-bench.ts";
import { presetNames } from "../../bench/model-presets.ts";
import { createDeviceReport, formatFlops, threeDigits, writeReport } from "../../bench/report.ts";
import type { DecodeCell } from "../../bench/shape-bench.ts";
import { integerFlag, nameFlag } from "../flags.ts";
import { addModelFlags, type ModelFlags } from "../model-flags.ts";
import { findModel, openSession, shippedModel, withInterrupt } from "../model-session.ts";
import { formatBytes, formatTable, note, paint, printJson, printLine } from "../output.ts";
import { checkPlaces } from "../output-places.ts";
import { benchShape, cellsFlag } from "./bench-shape.ts";

interface BenchModelFlags extends ModelFlags {
  readonly shape?: string;
  readonly cells: readonly DecodeCell[];
  readonly chunk: number;
  readonly prefill: number;
  readonly contexts: readonly number[];
  readonly steps: number;
  readonly heapTokens: number;
  readonly out?: string;
  readonly name: string;
  readonly json?: boolean;
}

function contextsFlag(text: string): number[] {
  const contexts = text.split(",").map(integerFlag(1));
  const ascending = contexts.every((context, i) => i === 0 || context > contexts[i - 1]!);
  if (ascending) return contexts;
  throw new InvalidArgumentError("Expected ascending numbers separated by commas.");
}

function printResult(result: ModelBenchResult): void {
  const head = ["work", "ms", "tokens/s", "GB/s", "of read ceiling"];
  const { prefill, decode, ceilings, memory } = result;
  const rows = decode.map((row) => [
    `decode at ${row.cachedTokens}`,
    threeDigits(row.milliseconds),
    row.tokensPerSecond.toFixed(1),
    row.gigabytesPerSecond.toFixed(1),
    row.fractionOfRead === null ? "" : `${(100 * row.fractionOfRead).toFixed(0)} %`,
  ]);
  const ms = threeDigits((1000 * prefill.tokens) / prefill.tokensPerSecond);
  rows.unshift([`prefill ${prefill.tokens}`, ms, prefill.tokensPerSecond.toFixed(1), "", ""]);
  const [first = "", ...lines] = formatTable([head, ...rows]).split("\n");
  printLine([paint.bold(first), ...lines, ""].join("\n"));
  if (ceilings !== null) {
    const [read, multiply] = [ceilings.bytesPerSecond / 1e9, formatFlops(ceilings.flopsPerSecond)];
    printLine(`ceilings: reads ${threeDigits(read)} GB/s, multiplies ${multiply}`);
  }
  printLine(
    `weights ${formatBytes(memory.weightBytes)}, cache ${formatBytes(memory.cacheBytes)} ` +
      `(${formatBytes(memory.cacheBytesPerToken)} a token), at most ${formatBytes(memory.peakBytes)} in use`,
  );
  if (result.heapBytesPerToken !== null) {
    printLine(`live heap grows by ${result.heapBytesPerToken.toFixed(1)} bytes a token`);
  }
}

/** Refuses flags that random weights would not heed. */
function checkShapeFlags({ cache, maxContext, heapTokens }: BenchModelFlags): void {
  if (cache === "bf16" && maxContext === undefined && heapTokens === 0) return;
  throw new UserError(
    "--cache, --max-context and --heap-tokens go with a model, not with --shape, whose cache is bf16 and as long as --cells.",
  );
}

async function benchModel(
  model: string | undefined,
  flags: BenchModelFlags,
  version: string,
  signal: AbortSignal,
): Promise<void> {
  if (flags.prefill === 0) throw new UserError("--prefill 0 goes with --shape alone; give at least 1 token.");
  const folder = await findModel(model ?? shippedModel, signal);
  const longest = Math.max(flags.prefill, flags.contexts.at(-1)! + flags.steps) + 1;
  const limit = folder.config.maxPositionEmbeddings;
  if (longest > limit) {
    throw new UserError(
      `This model's context is ${limit} tokens; --prefill, and --contexts with --steps, ask for ${longest}.`,
    );
  }
  const tokens = Math.max(longest, 64 + 256 + 1);
  const session = await openSession(folder, flags, { tokens, signal });
  try {
    const measured = await runModelBench(session.model, {
      ...flags,
      signal,
      onPart: (part) => {
        signal.throwIfAborted();
        note(part);
      },
    });
    const about = { name: flags.name, model: model ?? "shakespeare-mla", device: session.device.name };
    const report = createDeviceReport({ ...about, ...measured }, version, session.device);
    if (!flags.json) printResult(measured);
    if (flags.out !== undefined) note(`Written to ${await writeReport(report, flags.out)}`);
    printJson(report);
  } finally {
    await session.close();
  }
}

/** Adds `flashmla bench model`. */
export function addBenchModelCommand(bench: Command, version: string): void {
  const command = bench
    .command("model")
    .description("Time prefill and decode of a whole model beside the read bandwidth. The last line is JSON.")
    .argument("[model]", "folder, or id on the hub (owner/name); default: the model that ships with flashmla")
    .option(
      "--prefill <tokens>",
      "prompt tokens of the prefill measurement; 0, with --shape: none",
      integerFlag(0),
      512,
    )
    .option(
      "--contexts <list>",
      "cached tokens at which decoding is timed, ascending",
      contextsFlag,
      [128, 512],
    )
    .option(
      "--steps <n>",
      "steps timed at each context, of which the median counts",
      integerFlag(1, 10_000),
      32,
    )
    .option("--shape <preset>", `random weights of this shape in place of a model: ${presetNames.join(", ")}`)
    .option(
      "--cells <list>",
      "with --shape: batches and cached tokens at which decoding is timed",
      cellsFlag,
      [{ batch: 1, cachedTokens: 4096 }],
    )
    .option("--chunk <tokens>", "with --shape: prompt tokens of one step", integerFlag(1), 2048)
    .option("--heap-tokens <n>", "tokens over which the live heap is watched; 0: none", integerFlag(0), 0)
    .option("--out <folder>", "also write <folder>/<machine>/<date>-<name>.json")
    .option("--name <name>", "the name in that path", nameFlag, "model")
    .option("--json", "print the JSON line alone");
  addModelFlags(command)
    .addHelpText(
      "after",
      "\nExample: flashmla bench model ./model --contexts 128,1024,4096 --heap-tokens 2000" +
        "\n         flashmla bench model --shape mla-7b --device cuda --cells 1x4096,8x4096 --prefill 4096",
    )
    .action((model: string | undefined, flags: BenchModelFlags) =>
      withInterrupt((signal) => {
        const { shape } = flags;
        checkPlaces(flags);
        if (shape !== undefined) {
          checkShapeFlags(flags);
          return benchShape({ ...flags, shape }, version, signal);
        }
        return benchModel(model, flags, version, signal);
      }),
    );
}
