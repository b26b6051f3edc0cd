import { describe, expect, it } from "vitest";
import { openDevice } from "../device/open.ts";
import { presetConfig, presetNames } from "./model-presets.ts";
import { runShapeBench } from "./shape-bench.ts";

describe("bench model --shape", () => {
  it("tiny on the CPU: every cell and the prompt are timed, and all memory is given back", async () => {
    const device = await openDevice({ kind: "cpu", threads: 1 });
    const parts: string[] = [];
    const cells = [
      { batch: 1, cachedTokens: 70 },
      { batch: 3, cachedTokens: 20 },
    ];
    const options = { cells, prefill: 40, chunk: 16, steps: 2, onPart: (part: string) => parts.push(part) };
    const result = await runShapeBench(device, presetConfig("tiny"), options);
    expect(result.decode.map(({ batch, cachedTokens }) => ({ batch, cachedTokens }))).toEqual(cells);
    for (const { milliseconds, gigabytesPerSecond, fractionOfRead } of result.decode) {
      expect(milliseconds).toBeGreaterThan(0);
      expect(gigabytesPerSecond).toBeGreaterThan(0);
      expect(fractionOfRead).toBeGreaterThan(0);
    }
    expect(result.prefill?.tokens).toBe(40);
    // (128 latent + 32 rotary) bf16 values in 2 layers.
    expect(result.memory.cacheBytesPerToken).toBe(640);
    expect(parts).toContain("decode, 3 × 20 cached tokens");
    expect(device.memory.usedBytes).toBe(0);
    await device.close();
  });

  it("says which shapes there are", () => {
    expect(() => presetConfig("huge")).toThrow(
      /no shape "huge"; there are mla-7b, mla-7b-256, deepseek-v2-lite/,
    );
    const latent = presetNames.filter((name) => name !== "mha-7b");
    expect(latent.map((name) => presetConfig(name).attention.kvLoraRank)).toEqual([
      512, 256, 512, 512, 256, 128,
    ]);
  });
});
