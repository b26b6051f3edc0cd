import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { errorMessage, UserError } from "../../base/errors.ts";
import { Engine } from "../../engine/engine.ts";
import { type GeneratedText, generateText } from "../../engine/generate-text.ts";
import { checkPrompt } from "../../engine/prompt-logits.ts";
import type { GenerateRequest } from "../../engine/request.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import { addModelFlags, addSamplingFlags, type ModelFlags, type SamplingFlags } from "../model-flags.ts";
import {
  chooseSampling,
  findModel,
  findTokenizer,
  type ModelFolder,
  type ModelSession,
  openSession,
  shippedModel,
  withInterrupt,
} from "../model-session.ts";
import { printJson, printLine } from "../output.ts";
import { startProgress } from "../progress.ts";
import { printSummary, reportText } from "../summary.ts";

interface GenerateFlags extends ModelFlags, SamplingFlags {
  readonly prompt?: string;
  readonly promptFile?: string;
  readonly ignoreEos?: boolean;
  readonly json?: boolean;
}

const DEFAULT_TOKENS = 256;
const SHIPPED_PROMPT = "ROMEO:\nO, she doth teach the torches to burn bright!\n\nJULIET:\n";

/** The prompt that the flags name; for the shipped model, one of its own. */
function readPrompt({ prompt, promptFile }: GenerateFlags, model: string | undefined): string {
  if (prompt !== undefined && promptFile !== undefined) {
    throw new UserError("Give either --prompt or --prompt-file, not both.");
  }
  if (prompt !== undefined) return prompt;
  if (promptFile === undefined) {
    if (model === undefined) return SHIPPED_PROMPT;
    throw new UserError(
      "There is no prompt; give one with -p, or with --prompt-file (- for standard input).",
    );
  }
  try {
    return readFileSync(promptFile === "-" ? 0 : promptFile, "utf8");
  } catch (error) {
    throw new UserError(`The prompt cannot be read from ${promptFile}: ${errorMessage(error)}.`);
  }
}

/** The ids of the prompt, which must leave room in the context. */
function encodePrompt(tokenizer: Tokenizer, text: string, { config }: ModelFolder, flags: GenerateFlags) {
  const ids = [...tokenizer.encode(text)];
  const maxContext = flags.maxContext ?? config.maxPositionEmbeddings;
  checkPrompt(ids, config.vocabSize, maxContext - 1);
  return ids;
}

async function streamText(
  { model, reopen }: ModelSession,
  tokenizer: Tokenizer,
  eosTokenIds: readonly number[],
  request: GenerateRequest,
  write: (piece: string) => void,
): Promise<GeneratedText> {
  const bar = startProgress("Reading the prompt", "tokens");
  let done = 0;
  const stepEnd = ({ prefillTokens }: { prefillTokens: number }) => {
    done += prefillTokens;
    if (done < request.promptIds.length) bar.update(done, request.promptIds.length);
  };
  const engine = new Engine({
    ...{ runner: model.runner, tokenizer, eosTokenIds, reopen },
    observer: { stepEnd },
  });
  const pieces = generateText(engine, request);
  try {
    for (let next = await pieces.next(); ; next = await pieces.next()) {
      bar.stop();
      if (next.done) return next.value;
      write(next.value);
    }
  } finally {
    bar.stop();
    await engine.close();
  }
}

async function runGenerate(
  model: string | undefined,
  flags: GenerateFlags,
  signal: AbortSignal,
): Promise<void> {
  const text = readPrompt(flags, model);
  const folder = await findModel(model ?? shippedModel, signal);
  const tokenizer = await findTokenizer(folder);
  const promptIds = encodePrompt(tokenizer, text, folder, flags);
  const wanted = flags.maxTokens ?? DEFAULT_TOKENS;
  const tokens = promptIds.length + wanted;
  const needs = { tokens, tokenizerVocab: tokenizer.vocabSize, tellsDevice: true, signal };
  const session = await openSession(folder, flags, needs);
  try {
    const sampling = chooseSampling(flags, folder.defaults);
    const maxTokens = Math.min(wanted, session.model.maxContext - promptIds.length);
    const request = {
      promptIds,
      maxTokens,
      ...sampling,
      stop: flags.stop,
      ignoreEos: flags.ignoreEos,
      signal,
    };
    const write = flags.json ? () => {} : (piece: string) => process.stdout.write(piece);
    write(text);
    const result = await streamText(session, tokenizer, folder.defaults.eosTokenIds, request, write);
    const report = reportText(session, result, sampling.seed);
    if (flags.json) return printJson(report);
    printLine("\n");
    printSummary(report);
  } finally {
    await session.close();
  }
}

const examples = `
Examples:
  flashmla generate                                   the small model that ships with flashmla
  flashmla generate ./DeepSeek-V2-Lite -p "MLA is"    a folder in the Hugging Face layout
  flashmla generate openbmb/MiniCPM3-4B -p "Hello"    a model of the hub, downloaded once
  flashmla generate --greedy --json -p "To be" | jq .text`;

/** Adds `flashmla generate`. */
export function addGenerateCommand(program: Command): void {
  const command = program
    .command("generate")
    .description("Continue a text with a model, streaming, and end with what it cost.")
    .argument("[model]", "folder, or id on the hub (owner/name); default: the model that ships with flashmla")
    .option("-p, --prompt <text>", "the text to continue")
    .option("--prompt-file <file>", "the text to continue from a file; - for standard input");
  addModelFlags(addSamplingFlags(command))
    .option("--ignore-eos", "go on past the model's end of text")
    .option("--json", "print one JSON object at the end, and nothing before it")
    .addHelpText("after", examples)
    .action((model: string | undefined, flags: GenerateFlags) =>
      withInterrupt((signal) => runGenerate(model, flags, signal)),
    );
}
