import { existsSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { changeConfig, changeHeader, ModelFolders, shipped, writeWideWeights } from "./model-folders.ts";
import { runCli } from "./run-cli.ts";

const folders = new ModelFolders();
afterAll(() => folders.remove());

const weights = (folder: string) => join(folder, "model.safetensors");

const spoilers: readonly (readonly [string, (folder: string) => void, RegExp])[] = [
  ["no config.json", (folder) => rmSync(join(folder, "config.json")), /holds no config\.json/],
  [
    "a config.json that is no JSON",
    (folder) => writeFileSync(join(folder, "config.json"), "{"),
    /not valid JSON/,
  ],
  [
    "an unsupported model type",
    (folder) => changeConfig(folder, { model_type: "llama" }),
    /model_type.*"llama"/,
  ],
  ["no kv_lora_rank", (folder) => changeConfig(folder, { kv_lora_rank: undefined }), /kv_lora_rank/],
  [
    "an absurd number of layers",
    (folder) => changeConfig(folder, { num_hidden_layers: 1e9 }),
    /num_hidden_layers/,
  ],
  [
    "a vocabulary of another model",
    (folder) => changeConfig(folder, { vocab_size: 512 }),
    /tokenizer has ids up to/,
  ],
  ["no weights", (folder) => rmSync(weights(folder)), /holds no weights/],
  ["an empty file of weights", (folder) => truncateSync(weights(folder), 0), /too few for a header/],
  ["weights cut off in the header", (folder) => truncateSync(weights(folder), 100), /header of \d+ bytes/],
  ["weights cut off in the data", (folder) => truncateSync(weights(folder), 5_000_000), /model\.safetensors/],
  [
    "a header of 200 MB",
    (folder) => {
      const file = readFileSync(weights(folder));
      file.writeBigUInt64LE(200_000_000n);
      writeFileSync(weights(folder), file);
    },
    /more than the limit of 100000000/,
  ],
  [
    "a tensor that is missing",
    (folder) =>
      changeHeader(folder, (header) => {
        header["model.layers.9.unknown"] = header["model.norm.weight"]!;
        delete header["model.norm.weight"];
      }),
    /model\.norm\.weight is missing/,
  ],
  [
    "a tensor of another shape",
    (folder) =>
      changeHeader(folder, (header) => {
        const tensor = header["model.layers.0.self_attn.kv_b_proj.weight"]!;
        tensor.shape = [...tensor.shape].reverse();
      }),
    /kv_b_proj\.weight has the shape/,
  ],
  [
    "a tensor of another type",
    (folder) =>
      changeHeader(folder, (header) => {
        header["model.norm.weight"]!.dtype = "I16";
      }),
    /model\.norm\.weight is i16, expected bf16, f16 or f32/i,
  ],
  [
    "tensors that overlap",
    (folder) =>
      changeHeader(folder, (header) => {
        const { data_offsets: at } = header["model.norm.weight"]!;
        header["model.norm.weight"]!.data_offsets = [at[0] - 512, at[1] - 512];
      }),
    /overlap|belong to/,
  ],
  [
    "an offset outside the file",
    (folder) =>
      changeHeader(folder, (header) => {
        const { data_offsets: at } = header["model.norm.weight"]!;
        header["model.norm.weight"]!.data_offsets = [at[0] + 1e9, at[1] + 1e9];
      }),
    /model\.norm\.weight/,
  ],
  ["no tokenizer", (folder) => rmSync(join(folder, "tokenizer.json")), /no tokenizer\.json/],
  [
    "a model of 6 GiB",
    (folder) => {
      writeWideWeights(folder, 2 ** 20);
    },
    /needs 6\.0 GiB for its weights.*4\.0 GiB.*would fit/,
  ],
];

describe("generate with a model that cannot be run: one sentence, exit code 1, no output", () => {
  it.concurrent.each(spoilers)("%s", async (_, spoil, message) => {
    const folder = folders.spoiled(spoil);
    const { code, stdout, stderr } = await runCli(["generate", folder, "-p", "To be", "--device", "cpu"]);
    expect(stderr).toMatch(message);
    expect(stderr.trim().split("\n")).toHaveLength(1);
    expect(stderr).toMatch(/^error: /);
    expect(stdout).toBe("");
    expect(code).toBe(1);
  });
});

const refusals: readonly (readonly [string, readonly string[], RegExp])[] = [
  ["a folder that is not there", ["generate", "./nowhere", "-p", "a"], /no folder \.\/nowhere/],
  ["no prompt", ["generate", shipped], /There is no prompt/],
  ["two prompts", ["generate", shipped, "-p", "a", "--prompt-file", "b"], /not both/],
  ["a prompt file that is not there", ["generate", shipped, "--prompt-file", "./nowhere"], /cannot be read/],
  ["a prompt over the context", ["generate", shipped, "-p", "word ".repeat(3000)], /room for 1023/],
  [
    "a context over the model's",
    ["generate", shipped, "-p", "a", "--max-context", "9999"],
    /1024 tokens; --max-context/,
  ],
  [
    "an unknown device",
    ["generate", shipped, "-p", "a", "--device", "tpu"],
    /'tpu' is invalid. Expected one of cuda, webgpu, cpu, or cuda:1/,
  ],
  ["a GPU of no index", ["generate", shipped, "-p", "a", "--device", "cuda:x"], /'cuda:x' is invalid/],
  [
    "features of a device that has none",
    ["generate", shipped, "-p", "a", "--device", "cpu", "--disable-feature", "subgroups"],
    /--disable-feature is for the WebGPU device/,
  ],
  [
    "a feature that there is not",
    ["generate", shipped, "-p", "a", "--device", "webgpu", "--disable-feature", "magic"],
    /Allowed choices are shader-f16, subgroups/,
  ],
  ["a report in the place of a device", ["plan", "--html", "/dev/null"], /\/dev\/null is there and no file/],
  ["a report in the place of a folder", ["accuracy", "--html", "."], /--html \. is there and no file/],
  [
    "results under a file",
    ["bench", "model", "--out", join(shipped, "config.json")],
    /no folder; name another/,
  ],
  ["results under what is no folder", ["bench", "kernel", "--out", "/dev/null/x"], /a part of its path/],
  ["a name that leads elsewhere", ["bench", "compare", "--name", "../x"], /Expected letters, digits/],
  ["contexts over the model's", ["bench", "model", "--contexts", "9999"], /context is 1024 tokens.* 10032\./],
  [
    "flags of a model beside a shape",
    ["bench", "model", "--shape", "tiny", "--cache", "fp8"],
    /go with a model, not with --shape/,
  ],
  ["a temperature below zero", ["generate", shipped, "-p", "a", "--temperature", "-1"], /Expected a number/],
  ["no threads", ["generate", shipped, "-p", "a", "--threads", "0"], /Expected an integer from 1/],
  ["an unknown cache format", ["generate", shipped, "-p", "a", "--cache", "int3"], /Allowed choices/],
  ["ids out of range", ["logits", shipped, "--ids", "1,99999"], /token id 99999.*0 to 1023/],
  ["ids that are no numbers", ["logits", shipped, "--ids", "1,x"], /token ids separated by commas/],
  ["more positions than ids", ["logits", shipped, "--ids", "1,2", "--last", "3"], /3 positions of 2 ids/],
  ["an unknown command", ["generat"], /unknown command/],
];

describe("a command line that cannot be followed: exit code 1, no output", () => {
  it.concurrent.each(refusals)("%s", async (_, parameters, message) => {
    const { code, stdout, stderr } = await runCli(parameters);
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/^error: /);
    expect(stderr).not.toMatch(/\n {4}at /);
    expect(stdout).toBe("");
    expect(code).toBe(1);
  });
});

it.skipIf(!existsSync("/dev/full"))(
  "a full disk under standard output: one sentence, exit code 1",
  async () => {
    const { code, stderr } = await runCli(["logits", shipped, "--ids", "1,2,3"], { stdoutFile: "/dev/full" });
    expect(stderr).toBe("error: The output cannot be written: the disk is full.\n");
    expect(code).toBe(1);
  },
);
