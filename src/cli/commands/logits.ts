import type { Command } from "commander";
import { UserError } from "../../base/errors.ts";
import { checkPrompt, promptLogits } from "../../engine/prompt-logits.ts";
import { idsFlag, integerFlag } from "../flags.ts";
import { addModelFlags, type ModelFlags } from "../model-flags.ts";
import { findModel, openSession, withInterrupt } from "../model-session.ts";
import { printJson } from "../output.ts";

interface LogitsFlags extends ModelFlags {
  readonly ids: readonly number[];
  readonly last?: number;
}

async function runLogits(model: string, flags: LogitsFlags, signal: AbortSignal): Promise<void> {
  const { ids, last = ids.length } = flags;
  if (last > ids.length) throw new UserError(`--last asks for ${last} positions of ${ids.length} ids.`);
  const folder = await findModel(model, signal);
  checkPrompt(ids, folder.config.vocabSize, folder.config.maxPositionEmbeddings);
  const session = await openSession(folder, flags, { tokens: ids.length, maxDecodeRows: 8, signal });
  try {
    const rows = await promptLogits(session.model.runner, ids, last);
    const positions = Array.from({ length: last }, (_, i) => ids.length - last + i);
    const { modelType } = folder.config;
    printJson({ model, modelType, cache: flags.cache, positions, logits: rows.map((row) => [...row]) });
  } finally {
    await session.close();
  }
}

/** Adds `flashmla logits`. */
export function addLogitsCommand(program: Command): void {
  const command = program
    .command("logits")
    .description("Print the logits after given token ids as JSON: `logits` holds one array per position.")
    .argument("<model>", "folder, or id on the hub (owner/name)")
    .requiredOption("--ids <list>", "token ids, such as 1,2,3", idsFlag)
    .option("--last <n>", "only the last n positions; default: all", integerFlag(1));
  addModelFlags(command)
    .addHelpText("after", "\nExample: flashmla logits ./model --ids 1,15,27 --last 3 --cache f32")
    .action((model: string, flags: LogitsFlags) =>
      withInterrupt((signal) => runLogits(model, flags, signal)),
    );
}
