import { createInterface, type Interface } from "node:readline/promises";
import type { Command } from "commander";
import { UserError } from "../../base/errors.ts";
import { Engine } from "../../engine/engine.ts";
import { type GeneratedText, generateText } from "../../engine/generate-text.ts";
import { type ChatMessage, renderChat } from "../../text/chat-template.ts";
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
} from "../model-session.ts";
import { note, paint, paintError, printLine } from "../output.ts";

interface ChatFlags extends ModelFlags, SamplingFlags {
  readonly system?: string;
}

interface Chat {
  readonly engine: Engine;
  readonly session: ModelSession;
  readonly folder: ModelFolder;
  readonly tokenizer: Tokenizer;
  readonly flags: ChatFlags;
  readonly messages: ChatMessage[];
}

const DEFAULT_CONTEXT = 4096;

function encodeChat({ tokenizer, messages, session }: Chat): number[] {
  const ids = [...tokenizer.encode(renderChat(tokenizer.chat, { messages }), { addSpecialTokens: false })];
  const { maxContext } = session.model;
  if (ids.length < maxContext) return ids;
  throw new UserError(
    `The conversation has ${ids.length} tokens and the context ${maxContext}; /clear begins a new one, --max-context makes room.`,
  );
}

/** Streams the answer to the last message; Ctrl-C cuts it off. */
async function answer(chat: Chat): Promise<GeneratedText> {
  const { session, engine, flags, folder } = chat;
  const promptIds = encodeChat(chat);
  const controller = new AbortController();
  const interrupt = () => controller.abort();
  process.once("SIGINT", interrupt);
  const room = session.model.maxContext - promptIds.length;
  const pieces = generateText(engine, {
    promptIds,
    maxTokens: Math.min(flags.maxTokens ?? room, room),
    ...chooseSampling(flags, folder.defaults),
    stop: flags.stop,
    signal: controller.signal,
  });
  try {
    for (let next = await pieces.next(); ; next = await pieces.next()) {
      if (next.done) return next.value;
      process.stdout.write(next.value);
    }
  } finally {
    process.removeListener("SIGINT", interrupt);
  }
}

async function takeTurn(chat: Chat, line: string): Promise<void> {
  chat.messages.push({ role: "user", content: line });
  try {
    const { text, tokenIds, timing } = await answer(chat);
    chat.messages.push({ role: "assistant", content: text });
    const rate = timing.decodeTokensPerSecond.toFixed(0);
    const first = timing.firstTokenMs.toFixed(0);
    printLine();
    note(paintError.dim(`${tokenIds.length} tokens, first after ${first} ms, then ${rate} tokens/s\n`));
  } catch (error) {
    chat.messages.pop();
    if (!(error instanceof UserError)) throw error;
    note(`${paintError.red("error:")} ${error.message}`);
  }
}

function startMessages({ system }: ChatFlags): ChatMessage[] {
  return system === undefined ? [] : [{ role: "system", content: system }];
}

/** Reads lines until the input ends or says so. */
async function converse(chat: Chat, input: Interface): Promise<void> {
  const isTerminal = process.stdin.isTTY === true;
  const prompt = paint.bold("you> ");
  if (isTerminal) {
    note(paintError.dim("/clear begins anew, /exit or Ctrl-D ends, Ctrl-C cuts an answer off.\n"));
    input.setPrompt(prompt);
    input.prompt();
  }
  for await (const line of input) {
    const text = line.trim();
    if (text === "/exit") return;
    if (text === "/clear") chat.messages.splice(0, chat.messages.length, ...startMessages(chat.flags));
    else if (text !== "") await takeTurn(chat, text);
    if (isTerminal) input.prompt();
  }
}

async function runChat(model: string | undefined, flags: ChatFlags): Promise<void> {
  const { signal } = new AbortController();
  const folder = await findModel(model ?? shippedModel, signal);
  const tokenizer = await findTokenizer(folder);
  renderChat(tokenizer.chat, { messages: [...startMessages(flags), { role: "user", content: "" }] });
  const tokens = Math.min(folder.config.maxPositionEmbeddings, DEFAULT_CONTEXT);
  const needs = { tokens, tokenizerVocab: tokenizer.vocabSize, tellsDevice: true, signal };
  const session = await openSession(folder, flags, needs);
  const { eosTokenIds } = folder.defaults;
  const engine = new Engine({ runner: session.model.runner, tokenizer, eosTokenIds, reopen: session.reopen });
  const input = createInterface({ input: process.stdin, output: process.stderr });
  // Ctrl-C cuts off the answer under way; with none, it ends the conversation.
  input.on("SIGINT", () => {
    if (process.listenerCount("SIGINT") > 0) process.emit("SIGINT");
    else input.close();
  });
  try {
    await converse({ engine, session, folder, tokenizer, flags, messages: startMessages(flags) }, input);
  } finally {
    input.close();
    await engine.close();
    await session.close();
  }
}

/** Adds `flashmla chat`. */
export function addChatCommand(program: Command): void {
  const command = program
    .command("chat")
    .description("Talk with a model, by the chat template it brings.")
    .argument("[model]", "folder, or id on the hub (owner/name); default: the model that ships with flashmla")
    .option("--system <text>", "instructions that come before the conversation");
  addModelFlags(addSamplingFlags(command))
    .addHelpText("after", "\nLines may also come from a pipe: echo 'Who are you?' | flashmla chat ./model")
    .action(runChat);
}
