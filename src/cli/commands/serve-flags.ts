import { type Command, Option } from "commander";
import { integerFlag } from "../flags.ts";
import type { ModelFlags } from "../model-flags.ts";

/** Flags of `flashmla serve`. */
export interface ServeFlags extends ModelFlags {
  readonly host: string;
  readonly port: number;
  readonly apiKey?: readonly string[];
  readonly corsOrigin?: readonly string[];
  readonly servedModelName?: string;
  readonly maxRunning: number;
  readonly maxWaiting: number;
  readonly cacheTokens?: number;
  readonly draftTokens: number;
  readonly prefixReuse: boolean;
  readonly maxBodyBytes: number;
  readonly drainSeconds: number;
  readonly logLevel: string;
}

const collect = (value: string, earlier: string[] = []) => [...earlier, value];

/** Adds {@link ServeFlags}, but for those of every command with a model. */
export function addServeFlags(command: Command): Command {
  return command
    .option("--host <address>", "address to listen on; any but loopback needs a key", "127.0.0.1")
    .option("--port <n>", "port to listen on; 0 takes a free one", integerFlag(0, 65_535), 8000)
    .option("--api-key <key>", "key that clients must send; may be given several times", collect)
    .option("--cors-origin <origin>", "origin whose pages may ask, or *; may be given several times", collect)
    .option("--served-model-name <name>", "what clients call the model; default: as it is named here")
    .option("--max-running <n>", "sequences computed together", integerFlag(1, 1024), 64)
    .option("--max-waiting <n>", "sequences that may wait; further ones get 429", integerFlag(0), 1024)
    .option(
      "--cache-tokens <n>",
      "tokens in the cache; default: what all of them could fill, or fits",
      integerFlag(1),
    )
    .option(
      "--draft-tokens <n>",
      "tokens guessed from repetition and checked in one step",
      integerFlag(0, 64),
      0,
    )
    .option("--no-prefix-reuse", "compute every prompt from its start")
    .option("--max-body-bytes <n>", "largest body of a request", integerFlag(1024), 4 * 2 ** 20)
    .option(
      "--drain-seconds <n>",
      "time for requests under way after SIGTERM or Ctrl-C",
      integerFlag(0, 86_400),
      30,
    )
    .addOption(
      new Option("--log-level <level>", "what the JSON lines on standard output tell")
        .choices(["debug", "info", "warn", "error", "silent"])
        .default("info"),
    );
}
