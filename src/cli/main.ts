#!/usr/bin/env node
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { errorMessage, UserError } from "../base/errors.ts";
import { addAccuracyCommand } from "./commands/accuracy.ts";
import { addBenchCommand } from "./commands/bench.ts";
import { addChatCommand } from "./commands/chat.ts";
import { addDevicesCommand } from "./commands/devices.ts";
import { addGenerateCommand } from "./commands/generate.ts";
import { addKernelCommand } from "./commands/kernel.ts";
import { addLogitsCommand } from "./commands/logits.ts";
import { addPlanCommand } from "./commands/plan.ts";
import { addServeCommand } from "./commands/serve.ts";
import { addServeBenchCommand } from "./commands/serve-bench.ts";
import { addVerifyCommand } from "./commands/verify.ts";
import { note, paintError } from "./output.ts";

function version(): string {
  const manifest: unknown = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  return typeof manifest === "object" && manifest !== null && "version" in manifest
    ? String(manifest.version)
    : "";
}

function buildProgram(): Command {
  const program = new Command("flashmla")
    .description("Multi-head latent attention: run MLA models, check and measure their kernels.")
    .version(version())
    .option("--verbose", "show stack traces of errors")
    .configureHelp({ showGlobalOptions: true })
    .showHelpAfterError("Run the command with --help for its flags.")
    .exitOverride();
  addGenerateCommand(program);
  addChatCommand(program);
  addServeCommand(program);
  addLogitsCommand(program);
  addDevicesCommand(program);
  addBenchCommand(program);
  addServeBenchCommand(program);
  addKernelCommand(program);
  addVerifyCommand(program);
  addPlanCommand(program);
  addAccuracyCommand(program);
  return program;
}

/** One sentence for people; the stack only when asked. */
function report(error: unknown, verbose: boolean): void {
  const expected = error instanceof UserError || error instanceof RangeError || error instanceof TypeError;
  note(`${paintError.red("error:")} ${errorMessage(error)}`);
  if (verbose && error instanceof Error) note(error.stack ?? "");
  else if (!expected) note("Run it again with --verbose for the stack trace.");
}

async function main(): Promise<void> {
  const program = buildProgram();
  try {
    await program.parseAsync();
  } catch (error) {
    if (error instanceof CommanderError) {
      process.exitCode = error.exitCode === 0 ? 0 : 1;
      return;
    }
    report(error, program.opts<{ verbose?: boolean }>().verbose === true);
    process.exitCode = 1;
  }
}

process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  // A reader such as `head` that has seen enough is no failure.
  if (error.code === "EPIPE") process.exit(0);
  const reason = error.code === "ENOSPC" ? "the disk is full" : errorMessage(error);
  note(`${paintError.red("error:")} The output cannot be written: ${reason}.`);
  process.exit(1);
});
await main();
