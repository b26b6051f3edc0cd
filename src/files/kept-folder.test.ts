import { beforeEach, describe, expect, it } from "vitest";
import { UserError } from "../base/errors.ts";
import type { ByteFolder } from "./byte-folder.ts";
import { type ByteSource, bytesSource } from "./byte-source.ts";
import { type FileStore, type KeptFolderOptions, keptFolder } from "./kept-folder.ts";

class MemoryStore implements FileStore {
  index: string | undefined;
  files = new Map<string, Uint8Array>();
  left = Number.POSITIVE_INFINITY;
  /** Bytes after which writing fails. */
  writable = Number.POSITIVE_INFINITY;

  readIndex = async () => this.index;
  /** Writers of the index and of files at work; like a browser's file, each takes one. */
  writers = new Set<string>();
  writeIndex = async (text: string) => {
    if (this.writers.has("index")) throw new Error("there is another open Access Handle");
    this.writers.add("index");
    await new Promise((resolve) => setTimeout(resolve, 1));
    this.writers.delete("index");
    this.index = text;
  };
  room = async () => this.left;
  open = async (file: string) => {
    const bytes = this.files.get(file);
    return bytes && bytesSource(`kept ${file}`, bytes);
  };
  append = async (file: string, length: number) => {
    if (this.writers.has(file)) throw new Error("there is another open Access Handle");
    this.writers.add(file);
    this.files.set(file, (this.files.get(file) ?? new Uint8Array()).slice(0, length));
    return {
      write: async (bytes: Uint8Array) => {
        const before = this.files.get(file)!;
        if (before.length + bytes.length > this.writable) throw new Error("the disk is full");
        const after = new Uint8Array(before.length + bytes.length);
        after.set(before);
        after.set(bytes, before.length);
        this.files.set(file, after);
      },
      close: async () => void this.writers.delete(file),
    };
  };
}

const content = Uint8Array.from({ length: 1000 }, (_, i) => i & 255);
let store: MemoryStore;
let origin: {
  online: boolean;
  answers: boolean;
  version: string | undefined;
  bytes: Uint8Array;
  breakAt: number;
};
let streamed: number[];
beforeEach(() => {
  store = new MemoryStore();
  streamed = [];
  origin = {
    ...{ online: true, answers: true, version: '"a"' },
    ...{ bytes: content, breakAt: Number.POSITIVE_INFINITY },
  };
});

const folder: ByteFolder = {
  name: "origin",
  open: async (file) => {
    if (!origin.answers) await new Promise(() => {});
    if (!origin.online) throw new UserError("the network is down");
    if (file !== "weights") return undefined;
    const { bytes, version, breakAt } = origin;
    return {
      ...bytesSource("origin weights", bytes),
      version,
      async *stream(offset: number) {
        streamed.push(offset);
        for (let at = offset; at < bytes.length; at += 100) {
          if (at >= breakAt) throw new UserError("the connection broke");
          yield bytes.subarray(at, at + 100);
        }
      },
    };
  },
};

const visit = (options: KeptFolderOptions = {}) => keptFolder(folder, store, { patienceMs: 50, ...options });
async function read(source: ByteSource | undefined): Promise<[name: string, bytes: Uint8Array]> {
  const bytes = new Uint8Array(source!.size);
  await source!.read(0, bytes);
  return [source!.name, bytes];
}
const kept = ["kept weights", content];

describe("keptFolder", () => {
  it("keeps a file at the first visit and reads the copy at the second", async () => {
    const progress: number[] = [];
    const first = visit({ onProgress: (_, fetched, total) => progress.push(fetched / total) });
    expect(await read(await first.open("weights"))).toEqual(kept);
    expect([progress.length, progress[0], progress.at(-1)]).toEqual([10, 0.1, 1]);
    expect(await read(await visit().open("weights"))).toEqual(kept);
    expect(streamed).toEqual([0]);
  });

  it("keeps what is asked for at the same time, and fetches it once", async () => {
    const reasons: string[] = [];
    const folder = visit({ onNotKept: (_, reason) => reasons.push(reason) });
    const files = ["weights", "none", "weights", "other", "weights"];
    const sources = await Promise.all(files.map((file) => folder.open(file)));
    expect(sources.map((source) => source?.name)).toEqual([
      ...["kept weights", undefined, "kept weights", undefined, "kept weights"],
    ]);
    expect([streamed, reasons]).toEqual([[0], []]);
    expect(Object.keys(JSON.parse(store.index!)).sort()).toEqual(["none", "other", "weights"]);
  });

  it.each(["online", "answers"] as const)("opens what is kept when the origin is not %s", async (trouble) => {
    await visit().open("weights");
    await visit().open("none");
    origin[trouble] = false;
    expect(await read(await visit().open("weights"))).toEqual(kept);
    expect(await visit().open("none")).toBeUndefined();
  });

  it("rejects as the origin does for what is not kept", async () => {
    origin.online = false;
    await expect(visit().open("weights")).rejects.toThrow("the network is down");
  });

  it.each<[string, Partial<typeof origin>]>([
    ["version", { version: '"b"' }],
    ["size", { bytes: content.subarray(0, 900) }],
  ])("fetches again when the origin's %s is another", async (_, change) => {
    await visit().open("weights");
    Object.assign(origin, change);
    expect(await read(await visit().open("weights"))).toEqual(["kept weights", origin.bytes]);
    expect(streamed).toEqual([0, 0]);
  });

  it("goes on where a download broke off", async () => {
    origin.breakAt = 600;
    await expect(visit().open("weights")).rejects.toThrow("the connection broke");
    origin.breakAt = Number.POSITIVE_INFINITY;
    expect(await read(await visit().open("weights"))).toEqual(kept);
    expect(streamed).toEqual([0, 600]);
  });

  it("starts over when it cannot know that the content is the same", async () => {
    origin.breakAt = 600;
    await visit()
      .open("weights")
      .catch(() => {});
    origin.breakAt = Number.POSITIVE_INFINITY;
    origin.version = '"b"';
    expect(await read(await visit().open("weights"))).toEqual(kept);
    expect(streamed).toEqual([0, 0]);
  });

  it.each<[string, Partial<MemoryStore>, RegExp]>([
    ["there is no room", { left: 999 }, /room for 999 bytes and it needs 1000/],
    ["the store fails", { writable: 350 }, /the disk is full/],
  ])("reads from the origin when %s, and says so", async (_, trouble, reason) => {
    Object.assign(store, trouble);
    const reasons: string[] = [];
    const source = await visit({ onNotKept: (file, why) => reasons.push(`${file}: ${why}`) }).open("weights");
    expect(await read(source)).toEqual(["origin weights", content]);
    expect(reasons).toEqual([expect.stringMatching(reason)]);
  });

  it("fetches again what the store lost", async () => {
    await visit().open("weights");
    store.files.set("weights", content.slice(0, 10));
    expect(await read(await visit().open("weights"))).toEqual(kept);
    store.index = "{broken";
    expect(await read(await visit().open("weights"))).toEqual(kept);
  });
});
