import { describe, expect, it } from "vitest";
import { youtu } from "../../tests/fixtures/published-configs.ts";
import type { DeviceKind } from "../device/device.ts";
import { parseModelConfig } from "../formats/config.ts";
import { chooseExactness } from "./exactness.ts";

const wide = parseModelConfig(youtu);
const narrow = { ...wide, hiddenSize: 512 };

function deviceWith(kind: DeviceKind, problem: string | null) {
  const limits = { memoryBytes: 1, computeUnits: 1, features: new Set<string>() };
  return { kind, limits: kind === "cuda" ? { ...limits, cublasProblem: () => problem } : limits };
}

describe("chooseExactness", () => {
  it("stays in float32 where cuBLASLt is missing and nothing was asked for, and says why", () => {
    const notes: string[] = [];
    const onNote = (sentence: string) => notes.push(sentence);
    const without = deviceWith("cuda", "There is no cuBLASLt here.");
    expect(chooseExactness(without, wide, { onNote })).toBe(true);
    expect(notes).toEqual([
      "Prompts are computed in float32, several times slower: There is no cuBLASLt here.",
    ]);
    expect(chooseExactness(without, wide, { exact: false, onNote })).toBe(false);
    expect(chooseExactness(without, wide, { exact: true, onNote })).toBe(true);
    expect(notes).toHaveLength(1);
  });

  it("rounds where it can, and has nothing to decide elsewhere", () => {
    const onNote = () => expect.unreachable();
    expect(chooseExactness(deviceWith("cuda", null), wide, { onNote })).toBe(false);
    expect(chooseExactness(deviceWith("cuda", "nothing"), narrow, { onNote })).toBe(false);
    expect(chooseExactness(deviceWith("cpu", null), wide, { onNote })).toBe(false);
  });
});
