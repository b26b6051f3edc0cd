import { describe, expect, it } from "vitest";
import { UserError } from "../base/errors.ts";
import { createRandom } from "../base/random.ts";
import { bytesSource } from "../files/byte-source.ts";
import type { SafetensorsFile } from "./safetensors.ts";
import { openSafetensors } from "./safetensors.ts";

function build(header: unknown, dataBytes: number, claimedLength?: number | bigint): Uint8Array {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const file = new Uint8Array(8 + json.length + dataBytes);
  new DataView(file.buffer).setBigUint64(0, BigInt(claimedLength ?? json.length), true);
  file.set(json, 8);
  for (let i = 0; i < dataBytes; i++) file[8 + json.length + i] = i;
  return file;
}

const open = (file: Uint8Array): Promise<SafetensorsFile> =>
  openSafetensors(bytesSource("x.safetensors", file));
const tensor = (dtype: unknown, shape: unknown, begin: unknown, end: unknown) => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});

const good = build(
  {
    __metadata__: { format: "pt" },
    "model.norm.weight": tensor("BF16", [3], 24, 30),
    q: tensor("F32", [2, 3], 0, 24),
    scalar: tensor("U8", [], 30, 31),
    empty: tensor("F16", [4, 0], 31, 31),
  },
  31,
);

describe("openSafetensors", () => {
  it("reads metadata and tensors, scalars and empty ones too", async () => {
    const file = await open(good);
    expect([...file.metadata]).toEqual([["format", "pt"]]);
    expect([...file.tensors.keys()]).toEqual(["q", "model.norm.weight", "scalar", "empty"]);
    expect(file.tensors.get("model.norm.weight")).toMatchObject({ dtype: "bf16", shape: [3], byteLength: 6 });
    expect([...(await file.readTensor("model.norm.weight"))]).toEqual([24, 25, 26, 27, 28, 29]);
    expect([...(await file.readTensor("scalar"))]).toEqual([30]);
    expect((await file.readTensor("empty")).length).toBe(0);
  });

  it("accepts a header padded with spaces, and a file of no tensors", async () => {
    expect(
      (await open(build('{"a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]}}   ', 2))).tensors.size,
    ).toBe(1);
    expect((await open(build("{}", 0))).tensors.size).toBe(0);
  });

  it("names the file and the tensor that is not there", async () => {
    const file = await open(good);
    await expect(file.readTensor("k")).rejects.toThrow(new UserError('x.safetensors has no tensor "k"'));
    await expect(file.streamTensor("k", 8, () => {})).rejects.toThrow(UserError);
  });
});

describe("a file that breaks the format", () => {
  const one = (value: unknown, dataBytes: number) => build({ w: value }, dataBytes);
  const cases: [string, Uint8Array, RegExp][] = [
    ["no header", new Uint8Array(5), /5 bytes, too few/],
    ["a header longer than the file", build("{}", 0, 3), /claims a header of 3 bytes but has only 10/],
    ["a header over 100 MB", build("{}", 0, 100_000_001), /more than the limit of 100000000/],
    ["a header of 2^64 - 1 bytes", build("{}", 0, 2n ** 64n - 1n), /more than the limit/],
    ["a header cut in the middle", build('{"w":', 0), /header is not JSON/],
    ["bytes that are not UTF-8", build("\u00ff".repeat(4), 0).fill(0xff, 8), /header is not JSON/],
    ["a list for a header", build("[1]", 0), /not a JSON object/],
    ["null for a header", build("null", 0), /not a JSON object/],
    ["space before the header", build(" {}", 0), /not a JSON object/],
    ["a key that comes twice", build('{"w":1, "w" :2}', 0), /key "w" twice/],
    ["a dtype twice in one tensor", build('{"w":{"dtype":"F32","dtype":"F16"}}', 0), /key "dtype" twice/],
    ["an escaped key that comes twice", build('{"w":1,"\\u0077":2}', 0), /key "w" twice/],
    [
      "metadata of numbers",
      build({ __metadata__: { step: 3 } }, 0),
      /"step" of its __metadata__ is not a string/,
    ],
    ["metadata that is a string", build({ __metadata__: "pt" }, 0), /__metadata__ is not an object/],
    ["a tensor that is a number", one(3, 0), /tensor "w" is not described by an object/],
    ["an unknown dtype", one(tensor("F128", [1], 0, 16), 16), /tensor "w" has the unknown dtype "F128"/],
    ["a dtype called toString", one(tensor("toString", [1], 0, 1), 1), /unknown dtype "toString"/],
    ["a shape that is no list", one(tensor("F32", "3", 0, 4), 4), /tensor "w" has the shape "3"/],
    ["a negative size", one(tensor("F32", [-1], 0, 4), 4), /tensor "w" has the shape \[-1\]/],
    ["a size of one half", one(tensor("F32", [0.5], 0, 2), 2), /tensor "w" has the shape \[0.5\]/],
    ["a size of 2^53", one(tensor("U8", [2 ** 53], 0, 4), 4), /tensor "w" has the shape/],
    [
      "sizes whose product overflows",
      one(tensor("U8", [2 ** 40, 2 ** 40], 0, 4), 4),
      /more than can be addressed/,
    ],
    [
      "one offset",
      one({ dtype: "U8", shape: [1], data_offsets: [0] }, 1),
      /tensor "w" has the data_offsets \[0\]/,
    ],
    ["a negative offset", one(tensor("U8", [1], -1, 0), 1), /tensor "w" has the data_offsets \[-1,0\]/],
    ["an end before the beginning", one(tensor("U8", [1], 1, 0), 1), /begins at byte 1 and ends before it/],
    [
      "a length that is not its shape's",
      one(tensor("F32", [2], 0, 4), 4),
      /4 bytes where F32 of shape \[2\] takes 8/,
    ],
    ["an end past the file", one(tensor("U8", [9], 0, 9), 8), /tensor "w" ends 1 bytes past the end/],
    ["bytes after the last tensor", one(tensor("U8", [4], 0, 4), 7), /last 3 bytes belong to no tensor/],
    [
      "bytes before the first tensor",
      one(tensor("U8", [4], 2, 6), 6),
      /2 bytes before tensor "w" belong to no tensor/,
    ],
    [
      "tensors that overlap",
      build({ a: tensor("U8", [4], 0, 4), b: tensor("U8", [4], 3, 7) }, 7),
      /tensor "b" overlaps tensor "a"/,
    ],
    [
      "a gap between tensors",
      build({ a: tensor("U8", [2], 0, 2), b: tensor("U8", [2], 3, 5) }, 5),
      /1 bytes before tensor "b" belong to no tensor/,
    ],
  ];

  it.each(cases)("%s", async (_, file, message) => {
    const error = await open(file).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(UserError);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).toMatch(/^x\.safetensors is not a valid safetensors file: .*[^.]$/);
  });

  it("closes its source", async () => {
    let closed = 0;
    const source = { ...bytesSource("x", new Uint8Array(3)), close: async () => void closed++ };
    await expect(openSafetensors(source)).rejects.toThrow(UserError);
    expect(closed).toBe(1);
  });

  it("cut at any byte is a UserError", async () => {
    for (let length = 0; length < good.length; length++) {
      await expect(open(good.slice(0, length)), `cut at ${length}`).rejects.toThrow(UserError);
    }
  });

  it("with random bytes changed opens or is a UserError, and never reads outside the file", async () => {
    const random = createRandom(1);
    let opened = 0;
    for (let round = 0; round < 4000; round++) {
      const file = good.slice();
      for (let flips = 1 + random.integer(3); flips > 0; flips--) {
        file[random.integer(good.length - 31)]! ^= 1 << random.integer(8);
      }
      try {
        const store = await open(file);
        for (const name of store.tensors.keys()) await store.readTensor(name);
        opened++;
      } catch (error) {
        if (!(error instanceof UserError)) throw error;
      }
    }
    expect(opened).toBeGreaterThan(0);
    expect(opened).toBeLessThan(4000);
  });

  it("that shrank after it was opened is a UserError", async () => {
    const source = bytesSource("x", good);
    const shrunk = { ...source, read: bytesSource("x", good.slice(0, good.length - 2)).read };
    const file = await openSafetensors(shrunk);
    await expect(file.readTensor("scalar")).rejects.toThrow(/x ends before byte \d+, .*truncated/);
    await expect(file.streamTensor("scalar", 8, () => {})).rejects.toThrow(UserError);
  });
});

describe("streamTensor", () => {
  const bytes = 1003;
  const file = build({ w: tensor("U8", [bytes], 0, bytes) }, bytes);
  const expected = Uint8Array.from({ length: bytes }, (_, i) => i);

  it.each([1, 8, 9, 64, 500, 1000, 1003, 1008, 4096])("in chunks of %i bytes", async (chunkBytes) => {
    const store = await open(file);
    const collected = new Uint8Array(bytes).fill(0xaa);
    const lengths: number[] = [];
    let position = 0;
    await store.streamTensor("w", chunkBytes, async (chunk, byteOffset) => {
      expect(byteOffset).toBe(position);
      expect(byteOffset % 8).toBe(0);
      await new Promise((resolve) => setImmediate(resolve));
      collected.set(chunk, byteOffset);
      position += chunk.length;
      lengths.push(chunk.length);
    });
    expect(collected).toEqual(expected);
    expect(Math.max(...lengths)).toBeLessThanOrEqual(Math.max(8, chunkBytes));
  });

  it("holds two chunks of memory, however long the tensor", async () => {
    const memory = new Set<ArrayBufferLike>();
    let last = 0;
    await (await open(file)).streamTensor("w", 64, (chunk) => {
      memory.add(chunk.buffer);
      last = chunk.length;
    });
    expect([...memory].map((buffer) => buffer.byteLength)).toEqual([64, 64]);
    expect(last).toBe(1003 % 64);
  });

  it("gives nothing for an empty tensor", async () => {
    let calls = 0;
    await (await open(good)).streamTensor("empty", 64, () => void calls++);
    expect(calls).toBe(0);
  });

  it("stops at the first failure of the consumer, thrown or rejected", async () => {
    const store = await open(file);
    for (const fail of [() => Promise.reject(new Error("device lost")), () => expect.fail("device lost")]) {
      let calls = 0;
      const consume = () => (++calls === 3 ? fail() : undefined);
      await expect(store.streamTensor("w", 64, consume)).rejects.toThrow("device lost");
      expect(calls).toBe(3);
    }
  });

  it("refuses a chunk of no bytes", async () => {
    await expect((await open(file)).streamTensor("w", 0, () => {})).rejects.toThrow(RangeError);
  });
});
