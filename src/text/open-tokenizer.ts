import { UserError } from "../base/errors.ts";
import { type ByteFolder, type FolderLocation, openFolder } from "../files/byte-folder.ts";
import { readJson, readText } from "../files/read-file.ts";
import { isRecord } from "./json.ts";
import { loadTokenizer, type Tokenizer } from "./tokenizer.ts";

const jsonLimit = 64 * 1024 ** 2;
const templateLimit = 1024 ** 2;
const moreTemplates = "additional_chat_templates";

/**
 * Opens the tokenizer of a model's folder: tokenizer.json, and where present tokenizer_config.json and the chat templates. As
 * in transformers, chat_template.jinja and additional_chat_templates/*.jinja (named after the file, and found only where
 * the folder can be listed) come before chat_template.json, and that before the config's own. Rejects with UserError,
 * one sentence, for a file that is missing, unreadable, malformed, or larger than 64 MiB (1 MiB for a .jinja file).
 */
export async function openTokenizer(location: FolderLocation): Promise<Tokenizer> {
  const folder = openFolder(location);
  const tokenizerJson = await readJson(folder, "tokenizer.json", jsonLimit);
  if (tokenizerJson === undefined) {
    throw new UserError(
      `There is no tokenizer.json in ${folder.name}; give the directory of a model in the Hugging Face layout with a fast tokenizer.`,
    );
  }
  const tokenizerConfig = await readJson(folder, "tokenizer_config.json", jsonLimit);
  const chatTemplate = (await readJinja(folder)) ?? (await readTemplateJson(folder));
  return loadTokenizer({ tokenizerJson, tokenizerConfig, chatTemplate });
}

async function readJinja(folder: ByteFolder): Promise<Record<string, string> | undefined> {
  const found: Record<string, string> = {};
  const root = await readText(folder, "chat_template.jinja", templateLimit);
  if (root !== undefined) found.default = root;
  const names = (await folder.list?.(moreTemplates)) ?? [];
  for (const file of names.filter((name) => name.endsWith(".jinja")).sort()) {
    const text = await readText(folder, `${moreTemplates}/${file}`, templateLimit);
    if (text !== undefined) found[file.slice(0, -".jinja".length)] = text;
  }
  return Object.keys(found).length === 0 ? undefined : found;
}

async function readTemplateJson(folder: ByteFolder): Promise<unknown> {
  const parsed = await readJson(folder, "chat_template.json", jsonLimit);
  return isRecord(parsed) && "chat_template" in parsed ? parsed.chat_template : parsed;
}
