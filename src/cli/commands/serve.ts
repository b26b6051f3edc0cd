import type { Command } from "commander";
import { UserError } from "../../base/errors.ts";
import { addModelFlags } from "../model-flags.ts";
import { addServeFlags, type ServeFlags } from "./serve-flags.ts";

const examples = `
Examples:
  flashmla serve                                the small model that ships with flashmla
  flashmla serve ./DeepSeek-V2-Lite --port 9000
  FLASHMLA_API_KEY=secret flashmla serve openbmb/MiniCPM3-4B --host 0.0.0.0

Then:
  curl http://127.0.0.1:8000/v1/chat/completions -H "content-type: application/json" \\
    -d '{"messages": [{"role": "user", "content": "Good morrow!"}]}'`;

/** Adds `flashmla serve`: OpenAI's API over one model. The server's libraries are loaded when it runs, not before. */
export function addServeCommand(program: Command): void {
  const command = program
    .command("serve")
    .description("Answer OpenAI clients over HTTP, many at a time, and show a chat page.")
    .argument(
      "[model]",
      "folder, or id on the hub (owner/name); default: the model that ships with flashmla",
    );
  addServeFlags(addModelFlags(command))
    .addHelpText("after", examples)
    .action(async (model: string | undefined, flags: ServeFlags) => {
      if (flags.servedModelName === "") throw new UserError("--served-model-name must not be empty.");
      const { serve } = await import("./serve-run.ts");
      await serve(model, flags, program.version() ?? "");
    });
}
