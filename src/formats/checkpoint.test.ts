import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { UserError } from "../base/errors.ts";
import { openFileSource } from "../files/file-source.ts";
import { openCheckpoint } from "./checkpoint.ts";
import { openSafetensors } from "./safetensors.ts";
import { writeSafetensors } from "./safetensors-writer.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "checkpoint-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const values = (length: number, first: number) => Float32Array.from({ length }, (_, i) => first + i);
const f32 = (name: string, first: number) => ({
  name,
  dtype: "f32" as const,
  shape: [2, 3],
  data: values(6, first),
});

async function writeShards(weightMap: unknown): Promise<void> {
  await writeSafetensors(join(folder, "model-00001-of-00002.safetensors"), [f32("a", 1), f32("b", 7)]);
  await writeSafetensors(join(folder, "model-00002-of-00002.safetensors"), [f32("c", 13)]);
  writeFileSync(join(folder, "model.safetensors.index.json"), JSON.stringify({ weight_map: weightMap }));
}
const weightMap = {
  a: "model-00001-of-00002.safetensors",
  b: "model-00001-of-00002.safetensors",
  c: "model-00002-of-00002.safetensors",
};

describe("writeSafetensors", () => {
  it("writes what openSafetensors reads, aligned, with metadata", async () => {
    const path = join(folder, "out.safetensors");
    const tensors = [
      { name: "bytes", dtype: "u8" as const, shape: [3], data: Uint8Array.of(1, 2, 3) },
      { name: "__proto__", dtype: "bf16" as const, shape: [1, 2], data: Uint16Array.of(0x3f80, 0x4000) },
      { name: "ids", dtype: "i64" as const, shape: [2], data: BigInt64Array.of(-1n, 2n ** 40n) },
      { name: "scalar", dtype: "f32" as const, shape: [], data: Float32Array.of(0.5) },
    ];
    await writeSafetensors(path, tensors, { causal: "false" });
    const file = await openSafetensors(await openFileSource(path));
    expect([...file.metadata]).toEqual([["causal", "false"]]);
    for (const { name, dtype, shape, data } of tensors) {
      expect(file.tensors.get(name)).toMatchObject({ name, dtype, shape });
      expect(file.tensors.get(name)!.byteOffset % data.BYTES_PER_ELEMENT).toBe(0);
      expect(await file.readTensor(name)).toEqual(new Uint8Array(data.buffer));
    }
    await file.close();
    await expect(file.readTensor("ids")).rejects.toThrow(UserError);
  });

  it("replaces a file whole, and leaves only it behind", async () => {
    const path = join(folder, "out.safetensors");
    await writeSafetensors(path, [f32("a", 1)]);
    await writeSafetensors(path, []);
    expect(readFileSync(path, "utf8").slice(8).trim()).toBe("{}");
    expect(readdirSync(folder)).toEqual(["out.safetensors"]);
  });

  it("names the tensor whose bytes do not fit its shape, and the name that comes twice", async () => {
    const path = join(folder, "out.safetensors");
    await expect(writeSafetensors(path, [{ ...f32("a", 1), shape: [5] }])).rejects.toThrow(
      new RangeError('tensor "a" must have 20 bytes for f32 [5], got 24'),
    );
    await expect(writeSafetensors(path, [f32("a", 1), f32("a", 1)])).rejects.toThrow(RangeError);
    expect(readdirSync(folder)).toEqual([]);
  });

  it("is a UserError in a folder that does not exist", async () => {
    const path = join(folder, "none", "out.safetensors");
    await expect(writeSafetensors(path, [])).rejects.toThrow(
      new UserError(`cannot write ${path}: there is no such file`),
    );
  });
});

describe("openFileSource", () => {
  it("is a UserError for no file and for a folder", async () => {
    await expect(openFileSource(join(folder, "none"))).rejects.toThrow(
      /^cannot open .*none: there is no such file$/,
    );
    await expect(openFileSource(folder)).rejects.toThrow(UserError);
  });
});

describe("openCheckpoint", () => {
  it("opens a single file", async () => {
    await writeSafetensors(join(folder, "model.safetensors"), [f32("a", 1)]);
    const checkpoint = await openCheckpoint(folder);
    expect([...checkpoint.tensors.keys()]).toEqual(["a"]);
    expect(new Float32Array((await checkpoint.readTensor("a")).buffer)).toEqual(values(6, 1));
    await checkpoint.close();
  });

  it("opens shards by their index as one", async () => {
    await writeShards(weightMap);
    const checkpoint = await openCheckpoint(`${folder}/`);
    expect(checkpoint.name).toBe(folder);
    expect([...checkpoint.tensors.keys()].sort()).toEqual(["a", "b", "c"]);
    expect(new Float32Array((await checkpoint.readTensor("c")).buffer)).toEqual(values(6, 13));
    const offsets: number[] = [];
    await checkpoint.streamTensor("b", 8, (_, byteOffset) => void offsets.push(byteOffset));
    expect(offsets).toEqual([0, 8, 16]);
    await expect(checkpoint.readTensor("d")).rejects.toThrow(new UserError(`${folder} has no tensor "d"`));
    await checkpoint.close();
    await expect(checkpoint.readTensor("c")).rejects.toThrow(UserError);
  });

  it("prefers the single file to an index", async () => {
    await writeShards(weightMap);
    await writeSafetensors(join(folder, "model.safetensors"), [f32("whole", 1)]);
    const checkpoint = await openCheckpoint(folder);
    expect([...checkpoint.tensors.keys()]).toEqual(["whole"]);
    await checkpoint.close();
  });

  it("names what an empty folder lacks", async () => {
    await expect(openCheckpoint(folder)).rejects.toThrow(/holds no weights: .*model\.safetensors/);
  });

  it("names a missing shard", async () => {
    await writeShards({ ...weightMap, d: "model-00003-of-00003.safetensors" });
    await expect(openCheckpoint(folder)).rejects.toThrow(
      /lacks model-00003-of-00003\.safetensors, which .* names/,
    );
  });

  it("names a truncated shard", async () => {
    await writeShards(weightMap);
    truncateSync(join(folder, "model-00002-of-00002.safetensors"), 100);
    await expect(openCheckpoint(folder)).rejects.toThrow(/model-00002-of-00002\.safetensors is not a valid/);
  });

  it("names a tensor that its shard does not hold", async () => {
    await writeShards({ ...weightMap, missing: "model-00001-of-00002.safetensors" });
    await expect(openCheckpoint(folder)).rejects.toThrow(
      /model-00001-of-00002\.safetensors has no tensor "missing"/,
    );
  });

  it.each([
    ["not JSON", "{", /is not JSON/],
    ["a list", "[]", /no object called weight_map/],
    ["a weight_map that is a list", '{"weight_map":[]}', /no object called weight_map/],
    ["an empty weight_map", '{"weight_map":{}}', /weight_map is empty/],
    ["a number for a file", '{"weight_map":{"a":1}}', /tensor "a" in 1/],
    [
      "a file above the folder",
      '{"weight_map":{"a":"../x.safetensors"}}',
      /tensor "a" in "..\/x.safetensors"/,
    ],
    ["the folder above", '{"weight_map":{"a":".."}}', /names no file of its folder/],
    ["an absolute path", '{"weight_map":{"a":"/etc/passwd"}}', /names no file of its folder/],
    ["a drive", '{"weight_map":{"a":"C:x"}}', /names no file of its folder/],
    ["a backslash", '{"weight_map":{"a":"..\\\\x"}}', /names no file of its folder/],
  ])("refuses an index that is %s", async (_, text, message) => {
    writeFileSync(join(folder, "model.safetensors.index.json"), text);
    const error = await openCheckpoint(folder).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(UserError);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).toMatch(/model\.safetensors\.index\.json is not a valid index/);
  });
});
