import { errorCode, errorMessage, UserError } from "../base/errors.ts";
import { isRecord } from "./json.ts";
import { loadTokenizer, type Tokenizer } from "./tokenizer.ts";

const jsonLimit = 64 * 1024 ** 2;
const templateLimit = 1024 ** 2;

/**
 * Opens the tokenizer of a model directory in Node: tokenizer.json, and where present tokenizer_config.json and the
 * chat templates. As in transformers, chat_template.jinja and additional_chat_templates/*.jinja (named after the file)
 * come before chat_template.json, and that before the config's own. Throws UserError, one sentence, for a file that is
 * missing, unreadable, malformed, or larger than 64 MiB (1 MiB for a .jinja file).
 */
export async function openTokenizer(dir: string): Promise<Tokenizer> {
  const tokenizerJson = await readJson(await inDirectory(dir, "tokenizer.json"));
  if (tokenizerJson === undefined) {
    throw new UserError(
      `There is no tokenizer.json in ${dir}; give the directory of a model in the Hugging Face layout with a fast tokenizer.`,
    );
  }
  const tokenizerConfig = await readJson(await inDirectory(dir, "tokenizer_config.json"));
  const chatTemplate = (await readJinja(dir)) ?? (await readTemplateJson(dir));
  return loadTokenizer({ tokenizerJson, tokenizerConfig, chatTemplate });
}

async function readJinja(dir: string): Promise<Record<string, string> | undefined> {
  const found: Record<string, string> = {};
  const root = await readText(await inDirectory(dir, "chat_template.jinja"), templateLimit);
  if (root !== undefined) found.default = root;
  const folder = await inDirectory(dir, "additional_chat_templates");
  for (const file of await listJinja(folder)) {
    const text = await readText(await inDirectory(folder, file), templateLimit);
    if (text !== undefined) found[file.slice(0, -".jinja".length)] = text;
  }
  return Object.keys(found).length === 0 ? undefined : found;
}

async function readTemplateJson(dir: string): Promise<unknown> {
  const parsed = await readJson(await inDirectory(dir, "chat_template.json"));
  return isRecord(parsed) && "chat_template" in parsed ? parsed.chat_template : parsed;
}

async function readJson(path: string): Promise<unknown> {
  const text = await readText(path, jsonLimit);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UserError(`${path} is not valid JSON (${errorMessage(error)}); download the model again.`, {
      cause: error,
    });
  }
}

/** The text of a file of at most `limit` bytes; undefined when there is none. */
async function readText(path: string, limit: number): Promise<string | undefined> {
  const bytes = await readBounded(path, limit);
  if (bytes === undefined) return undefined;
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new UserError(`${path} is not UTF-8 text; download the model again.`, { cause: error });
  }
}

async function readBounded(path: string, limit: number): Promise<Uint8Array | undefined> {
  const { readFile, stat } = await import("node:fs/promises");
  try {
    const { size } = await stat(path);
    if (size <= limit) return await readFile(path);
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw unreadable(path, error);
  }
  throw new UserError(
    `${path} is larger than ${limit / 1024 ** 2} MiB, more than such a file may be; download the model again.`,
  );
}

async function listJinja(folder: string): Promise<string[]> {
  const { readdir } = await import("node:fs/promises");
  try {
    return (await readdir(folder)).filter((name) => name.endsWith(".jinja")).sort();
  } catch (error) {
    if (isAbsent(error)) return [];
    throw unreadable(folder, error);
  }
}

function isAbsent(error: unknown): boolean {
  const code = errorCode(error);
  return code === "ENOENT" || code === "ENOTDIR";
}

function unreadable(path: string, error: unknown): UserError {
  return new UserError(
    `${path} cannot be read (${errorMessage(error)}); check the path and its permissions.`,
    {
      cause: error,
    },
  );
}

async function inDirectory(dir: string, name: string): Promise<string> {
  const { join } = await import("node:path");
  return join(dir, name);
}
