import { File } from "node:buffer";
import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { openCheckpoint } from "../formats/checkpoint.ts";
import { readGenerationDefaults, readModelConfig } from "../formats/model-folder.ts";
import { openTokenizer } from "../text/open-tokenizer.ts";
import { type PickedFile, pickedFolder } from "./blob-folder.ts";

const shipped = new URL("../../models/shakespeare-mla/", import.meta.url);
const names = [
  "config.json",
  "generation_config.json",
  "model.safetensors",
  "tokenizer.json",
  "tokenizer_config.json",
];

async function pick(folder: string | null, files: readonly string[] = names): Promise<PickedFile[]> {
  return Promise.all(
    files.map(async (name) => {
      const file = new File([await readFile(new URL(name, shipped))], name);
      const path = folder === null ? {} : { webkitRelativePath: `${folder}/${name}` };
      return Object.assign(file, path) as unknown as PickedFile;
    }),
  );
}

describe("pickedFolder", () => {
  it.each(["my model", null])("opens the shipped model from File objects (folder: %s)", async (folder) => {
    const model = pickedFolder(await pick(folder));
    const config = await readModelConfig(model);
    expect(config.modelType).toBe("youtu");
    expect((await readGenerationDefaults(model, config)).doSample).toBe(true);
    const tokenizer = await openTokenizer(model);
    expect(tokenizer.decode(tokenizer.encode("To be, or not"))).toContain("To be, or not");
    const [picked, stored] = await Promise.all([openCheckpoint(model), openCheckpoint(shipped.pathname)]);
    expect(await picked.readTensor("model.norm.weight")).toEqual(
      await stored.readTensor("model.norm.weight"),
    );
    await Promise.all([picked.close(), stored.close()]);
  });

  it("lists templates in a folder of the picked one", async () => {
    const template = Object.assign(new File(["{{ x }}"], "tools.jinja"), {
      webkitRelativePath: "m/additional_chat_templates/tools.jinja",
    }) as unknown as PickedFile;
    const tokenizer = await openTokenizer(pickedFolder([...(await pick("m")), template]));
    expect([...(tokenizer.chat?.templates.keys() ?? [])]).toEqual(["tools"]);
  });

  it("says what is missing", async () => {
    const none = pickedFolder([]);
    await expect(readModelConfig(none)).rejects.toThrow("the picked files holds no config.json");
    const few = pickedFolder(await pick("m", ["config.json"]));
    await expect(openCheckpoint(few)).rejects.toThrow("m holds no weights");
  });
});
