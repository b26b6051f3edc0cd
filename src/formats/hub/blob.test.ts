import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { UserError } from "../../base/errors.ts";
import { downloadBlob } from "./blob.ts";

// How many bytes the disk of the test still takes.
let room = Number.POSITIVE_INFINITY;

vi.mock("node:fs/promises", async (importOriginal) => {
  const original = await importOriginal<typeof import("node:fs/promises")>();
  const open: typeof original.open = async (...args) => {
    const handle = await original.open(...args);
    const write = handle.write.bind(handle) as (...args: unknown[]) => Promise<unknown>;
    const limited = async (bytes: Uint8Array, offset: number, length: number, position: number) => {
      if (room === 0) throw Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
      const taken = Math.min(length, room, 700);
      room -= taken;
      return write(bytes, offset, taken, position);
    };
    return Object.assign(handle, { write: limited });
  };
  return { ...original, open };
});

const content = Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7) % 251));
let folder = "";
let target = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "blob-"));
  target = join(folder, "blob");
});
afterEach(() => {
  room = Number.POSITIVE_INFINITY;
  rmSync(folder, { recursive: true, force: true });
});

function download(starts: number[] = []): Promise<void> {
  return downloadBlob({
    file: { path: "w", size: content.length, hash: createHash("sha256").update(content).digest("hex") },
    target,
    fetchFrom: async (start) => {
      starts.push(start);
      return new Blob([content.subarray(start)]).stream();
    },
    onBytes: () => {},
    explain: (error) => new UserError("broken", { cause: error }),
    stallSeconds: 5,
    signal: undefined,
  });
}

it("goes on after writes that took only a part", async () => {
  await download();
  expect(readFileSync(target).equals(content)).toBe(true);
});

it("leaves nothing on a full disk, and says so", async () => {
  room = 3000;
  const error = await download().catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(UserError);
  expect((error as Error).message).toMatch(
    /^the disk is full at .*blob; free some space, or set HF_HUB_CACHE/,
  );
  expect(readdirSync(folder)).toEqual([]);
});

it("asks for nothing when all that was missing was the name", async () => {
  writeFileSync(`${target}.incomplete`, content);
  const starts: number[] = [];
  await download(starts);
  expect(starts).toEqual([]);
  expect(readFileSync(target).equals(content)).toBe(true);
});

it("asks from where an earlier call stopped", async () => {
  writeFileSync(`${target}.incomplete`, content.subarray(0, 4001));
  const starts: number[] = [];
  await download(starts);
  expect(starts).toEqual([4001]);
  expect(readFileSync(target).equals(content)).toBe(true);
});
