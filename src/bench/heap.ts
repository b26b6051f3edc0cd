import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { SequenceDriver } from "./sequence-driver.ts";

/** Bytes of the heap and of array buffers outside it, after a full collection. */
function liveBytes(): number {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  // Array buffers that the first collection finds are given back during the second.
  for (let round = 0; round < 3; round++) collect();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/** Tokens after which the sequence is cut back. */
const SPAN = 256;

/**
 * Live bytes that each of `tokens` decoded tokens leaves behind, after full collections; about 0 when nothing is kept.
 * As many are decoded before the first reading: until the engine has compiled what runs often, its code grows the heap (170 KB
 * in the first thousand tokens, nothing after three). The sequence is cut back again and again, so it needs little room.
 */
export async function measureHeap(driver: SequenceDriver, tokens: number): Promise<number> {
  const base = Math.min(driver.length, 64);
  driver.truncate(base);
  const decode = async (count: number) => {
    for (let token = 0; token < count; token++) {
      if (driver.length >= base + SPAN) driver.truncate(base);
      await driver.decode();
    }
  };
  await decode(tokens);
  const before = liveBytes();
  await decode(tokens);
  return (liveBytes() - before) / tokens;
}
