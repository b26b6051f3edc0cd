import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { UserError } from "../base/errors.ts";
import { writeSafetensors } from "./safetensors-writer.ts";

// Stands between the writer and the disk: called with how often the open file was written to before.
let onWrite: (writes: number) => void = () => {};

vi.mock("node:fs/promises", async (importOriginal) => {
  const original = await importOriginal<typeof import("node:fs/promises")>();
  const open: typeof original.open = async (...args) => {
    const handle = await original.open(...args);
    const write = handle.write.bind(handle) as (...args: unknown[]) => Promise<unknown>;
    let writes = 0;
    const watched = async (bytes: Uint8Array, offset: number, length: number) => {
      onWrite(writes++);
      return write(bytes, offset, Math.ceil(length / 2));
    };
    return Object.assign(handle, { write: watched });
  };
  return { ...original, open };
});

let folder = "";
let path = "";
const tensor = { name: "w", dtype: "u8" as const, shape: [100], data: new Uint8Array(100).fill(7) };
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "writer-"));
  path = join(folder, "out.safetensors");
});
afterEach(() => {
  onWrite = () => {};
  rmSync(folder, { recursive: true, force: true });
});

it("goes on after writes that took only a part", async () => {
  await writeSafetensors(path, [tensor]);
  expect(readFileSync(path).subarray(-100)).toEqual(Buffer.alloc(100, 7));
});

it("leaves the old file and nothing else when the disk is full", async () => {
  writeFileSync(path, "old");
  onWrite = (writes) => {
    if (writes === 4) throw Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
  };
  const error = await writeSafetensors(path, [tensor]).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(UserError);
  expect((error as Error).message).toMatch(/^cannot write .*out\.safetensors: the disk is full/);
  expect(readdirSync(folder)).toEqual(["out.safetensors"]);
  expect(readFileSync(path, "utf8")).toBe("old");
});

it("removes what it has written when the process exits in the middle", async () => {
  const before = new Set(process.listeners("exit"));
  let present: string[] = [];
  onWrite = (writes) => {
    if (writes !== 2) return;
    present = readdirSync(folder);
    for (const listener of process.listeners("exit")) if (!before.has(listener)) listener(130);
    expect(readdirSync(folder)).toEqual([]);
  };
  await expect(writeSafetensors(path, [tensor])).rejects.toThrow(UserError);
  expect(present).toHaveLength(1);
  expect(existsSync(path)).toBe(false);
  expect(process.listeners("exit").filter((listener) => !before.has(listener))).toEqual([]);
});
