import { mkdir, mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { byteLevel } from "../../tests/golden/tokenizer/golden.ts";
import { openTokenizer } from "./open-tokenizer.ts";

let dir = "";
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "open-tokenizer-"));
  await put("tokenizer.json", JSON.stringify(byteLevel.tokenizer));
});
afterEach(() => rm(dir, { recursive: true }));

const put = (name: string, content: string | Uint8Array) => writeFile(join(dir, name), content);
const templates = async () => Object.fromEntries((await openTokenizer(dir)).chat?.templates ?? []);

async function expectUserError(part: string): Promise<void> {
  const error: unknown = await openTokenizer(dir).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ name: "UserError" });
  expect((error as Error).message).toContain(part);
}

describe("openTokenizer", () => {
  it("needs no more than tokenizer.json", async () => {
    const tokenizer = await openTokenizer(dir);
    expect([...tokenizer.encode("To be")]).toEqual([403, 309]);
    expect([tokenizer.chat, tokenizer.bosId]).toEqual([undefined, undefined]);
  });

  it("reads tokenizer_config.json, with a byte order mark too", async () => {
    await put(
      "tokenizer_config.json",
      `\ufeff${JSON.stringify({ eos_token: "<eos>", chat_template: "config" })}`,
    );
    expect((await openTokenizer(dir)).eosId).toBe(2);
    expect(await templates()).toEqual({ default: "config" });
  });

  it("prefers .jinja files to chat_template.json to the config", async () => {
    await put(
      "tokenizer_config.json",
      JSON.stringify({ chat_template: [{ name: "default", template: "config" }] }),
    );
    await put("chat_template.json", JSON.stringify({ chat_template: "json" }));
    expect(await templates()).toEqual({ default: "json" });
    await put("chat_template.jinja", "jinja");
    await mkdir(join(dir, "additional_chat_templates"));
    await put("additional_chat_templates/tool_use.jinja", "tools");
    await put("additional_chat_templates/notes.txt", "not a template");
    expect(await templates()).toEqual({ default: "jinja", tool_use: "tools" });
  });

  it("says that tokenizer.json or the directory is missing", async () => {
    await rm(join(dir, "tokenizer.json"));
    await expectUserError(`There is no tokenizer.json in ${dir}`);
    await expect(openTokenizer(join(dir, "no", "such"))).rejects.toMatchObject({ name: "UserError" });
  });

  it.each([
    ["tokenizer.json", "", "is not valid JSON"],
    ["tokenizer.json", '{"model":', "is not valid JSON"],
    ["tokenizer.json", "[]", "not a JSON object"],
    ["tokenizer.json", Uint8Array.of(0x22, 0xff, 0x22), "is not UTF-8 text"],
    ["tokenizer_config.json", "null", "not a JSON object"],
    ["chat_template.json", '{"chat_template": 3}', "neither text nor a list"],
  ])("says what is wrong with %s of %j", async (name, content, part) => {
    await put(name, content);
    await expectUserError(part);
  });

  it.each([
    ["tokenizer.json", 64],
    ["tokenizer_config.json", 64],
    ["chat_template.jinja", 1],
  ])("does not read a %s of more than %i MiB", async (name, limit) => {
    await put(name, "");
    await truncate(join(dir, name), limit * 1024 ** 2 + 1);
    await expectUserError(`is larger than ${limit} MiB`);
  });

  it("says that a folder is no file", async () => {
    await mkdir(join(dir, "tokenizer_config.json"));
    await expectUserError("tokenizer_config.json: it is not a file");
  });
});
