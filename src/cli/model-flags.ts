import { type Command, Option } from "commander";
import { deviceKinds } from "../device/open.ts";
import { webGpuFeatures } from "../device/webgpu/adapter.ts";
import { deviceFlag, integerFlag, numberFlag } from "./flags.ts";

/** Flags of every command that opens a model. */
export interface ModelFlags {
  readonly cache: "f32" | "f16" | "bf16" | "fp8";
  readonly device?: string;
  readonly threads?: number;
  readonly maxContext?: number;
  readonly exact?: boolean;
  readonly disableFeature?: readonly string[];
}

/** Flags of every command that draws tokens. */
export interface SamplingFlags {
  readonly maxTokens?: number;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly greedy?: boolean;
  readonly seed?: number;
  readonly stop?: readonly string[];
}

/** `--disable-feature`: what the WebGPU device does without, so that any variant of a kernel can be tried on any adapter. */
export function disableFeatureOption(): Option {
  return new Option("--disable-feature <names...>", "features the WebGPU device does without").choices(
    webGpuFeatures,
  );
}

/** `--device`: what a command runs on; `meaning` says what it does without the flag. */
export function deviceOption(meaning = "device to run on; default: the best one here"): Option {
  const kinds = `${deviceKinds.join(", ")}; cuda:1 is the GPU of index 1`;
  return new Option("--device <kind>", `${meaning} (${kinds})`).argParser(deviceFlag);
}

/** Adds {@link ModelFlags}. */
export function addModelFlags(command: Command): Command {
  return command
    .addOption(
      new Option("--cache <dtype>", "how the latent cache is stored")
        .choices(["f32", "f16", "bf16", "fp8"])
        .default("bf16"),
    )
    .addOption(deviceOption())
    .option("--exact", "keep activations in float32, also where CUDA would round those of prompts to bf16")
    .option("--threads <n>", "threads of the CPU device; default: all processors", integerFlag(1, 256))
    .addOption(disableFeatureOption())
    .option(
      "--max-context <tokens>",
      "tokens that the cache holds; default: as many as are needed",
      integerFlag(1),
    );
}

/** Adds {@link SamplingFlags}. */
export function addSamplingFlags(command: Command): Command {
  const collect = (value: string, earlier: string[] = []) => [...earlier, value];
  return command
    .option("-n, --max-tokens <n>", "tokens to draw at most", integerFlag(1))
    .option(
      "--temperature <t>",
      "randomness; 0 takes the likeliest token; default: what the model suggests",
      numberFlag(0, 100),
    )
    .option("--top-k <k>", "draw from the k likeliest tokens; 0: from all", integerFlag(0, 2 ** 31 - 1))
    .option("--top-p <p>", "draw from the likeliest tokens that make up this share", numberFlag(0, 1))
    .option("--min-p <p>", "drop tokens less likely than this share of the likeliest", numberFlag(0, 1))
    .option("--greedy", "always take the likeliest token")
    .option("--seed <n>", "make draws repeatable; default: another one each time", integerFlag(0))
    .option("--stop <text>", "end before this text; may be given several times", collect);
}
