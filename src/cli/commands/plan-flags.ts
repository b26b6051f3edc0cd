import { type Command, Option } from "commander";
import { defaultLoad } from "../../economics/assumptions.ts";
import { integerFlag, numberFlag, positiveFlag } from "../flags.ts";

/** Flags of `flashmla plan`. */
export interface PlanFlags {
  readonly rps: number;
  readonly prompt: number;
  readonly output: number;
  readonly tpot: number;
  readonly ttft: number;
  readonly utilisation: number;
  readonly gpu: string;
  readonly gpus?: string;
  readonly price?: number;
  readonly memory?: number;
  readonly bandwidth?: number;
  readonly tflops?: number;
  readonly weights: "bf16" | "fp8";
  readonly cache: "f32" | "f16" | "bf16" | "fp8";
  readonly tensorParallel: number;
  readonly dataParallel?: number;
  readonly results?: string;
  readonly params?: number;
  readonly layers?: number;
  readonly hidden?: number;
  readonly heads?: number;
  readonly headDim?: number;
  readonly kvLoraRank?: number;
  readonly ropeDim?: number;
  readonly context?: number;
  readonly json?: boolean;
  readonly html?: string;
}

function addLoadFlags(command: Command): void {
  command
    .option("--rps <n>", "requests a second", positiveFlag, defaultLoad.requestsPerSecond)
    .option("--prompt <tokens>", "tokens of a prompt", integerFlag(1), defaultLoad.promptTokens)
    .option("--output <tokens>", "tokens of an answer", integerFlag(1), defaultLoad.outputTokens)
    .option("--tpot <ms>", "milliseconds a token at most", positiveFlag, defaultLoad.tokenLatencyMs)
    .option(
      "--ttft <ms>",
      "milliseconds to the first token at most",
      positiveFlag,
      defaultLoad.firstTokenLatencyMs,
    )
    .option(
      "--utilisation <share>",
      "share of a copy's capacity to plan for",
      numberFlag(0.01, 1),
      defaultLoad.utilisation,
    );
}

function addMachineFlags(command: Command): void {
  command
    .option("--gpu <id>", "GPU type of the data file", "h200-sxm")
    .option("--gpus <file>", "another data file; default: the package's data/gpus.json")
    .option("--price <dollars>", "dollars an hour of one GPU", numberFlag(0))
    .option("--memory <GB>", "memory of a GPU", positiveFlag)
    .option("--bandwidth <GB/s>", "memory bandwidth of a GPU", positiveFlag)
    .option("--tflops <n>", "dense bf16 TFLOPS of a GPU", positiveFlag)
    .addOption(
      new Option("--weights <dtype>", "how weights are stored").choices(["bf16", "fp8"]).default("bf16"),
    )
    .addOption(
      new Option("--cache <dtype>", "how the latent cache is stored")
        .choices(["f32", "f16", "bf16", "fp8"])
        .default("bf16"),
    )
    .option("--tensor-parallel <n>", "GPUs that share a copy of the model", integerFlag(1, 1024), 1)
    .option("--data-parallel <n>", "copies of the model; default: as many as the load needs", integerFlag(1))
    .option("--results <file>", "calibrate by a report of flashmla bench kernel");
}

function addPlainModelFlags(command: Command): void {
  const count = integerFlag(1);
  command
    .option("--params <n>", "a dense model by plain numbers: all its weights, such as 7e9", numberFlag(1))
    .option("--layers <n>", "its layers", count)
    .option("--hidden <n>", "its hidden size", count)
    .option("--heads <n>", "its heads", count)
    .option("--head-dim <n>", "width of a head", count)
    .option("--kv-lora-rank <n>", "width of the latent", count)
    .option("--rope-dim <n>", "rotary width of the cache entry", count)
    .option("--context <n>", "tokens that it was made for", count);
}

/** Adds {@link PlanFlags}. */
export function addPlanFlags(command: Command): void {
  addLoadFlags(command);
  addMachineFlags(command);
  addPlainModelFlags(command);
  command
    .option("--html <file>", "also write the report with its charts as one HTML file")
    .option("--json", "print the JSON line alone");
}
