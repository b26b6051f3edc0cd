import { describe, expect, it } from "vitest";
import * as published from "../../tests/fixtures/published-configs.ts";
import { parseModelConfig } from "../formats/config.ts";
import {
  attentionFactor,
  inverseFrequencies,
  queryScale,
  queryScaleTable,
  rotaryTable,
  softmaxScale,
} from "./rope.ts";

const v3 = parseModelConfig(published.deepseekV3);
const miniCpm3 = parseModelConfig(published.miniCpm3);
const mistral4 = parseModelConfig(published.mistral4);

describe("inverseFrequencies", () => {
  it("default, d_r=64: theta^(-2i/d_r)", () => {
    const frequencies = inverseFrequencies({ type: "default", theta: 10000 }, 64, 100);
    expect(frequencies).toHaveLength(32);
    expect(frequencies[0]).toBe(1);
    expect(frequencies[16]).toBeCloseTo(0.01, 15);
    expect(frequencies[8]).toBeCloseTo(0.1, 15);
  });

  it("linear, d_r=32: every frequency over the factor", () => {
    const rope = { type: "linear", theta: 10000, factor: 4, mscaleAllDim: null } as const;
    expect(inverseFrequencies(rope, 32, 100)[8]).toBeCloseTo(0.0025, 15);
  });

  it("YaRN, d_r=64, 4096 positions by 40: kept to channel 10, blended, divided from channel 23", () => {
    const frequencies = inverseFrequencies(v3.rope, 64, 100);
    const plain = inverseFrequencies({ type: "default", theta: 10000 }, 64, 100);
    const ratios = Array.from(frequencies, (frequency, i) => frequency / plain[i]!);
    for (let i = 0; i <= 10; i++) expect(ratios[i]).toBeCloseTo(1, 12);
    for (let i = 11; i < 23; i++) expect(ratios[i]).toBeCloseTo(1 - ((i - 10) / 13) * (1 - 1 / 40), 12);
    for (let i = 23; i < 32; i++) expect(ratios[i]).toBeCloseTo(1 / 40, 12);
  });

  it("longrope, d_r=32: short divisors up to the original context, long ones past it", () => {
    const rope = {
      type: "longrope",
      theta: 10000,
      factor: 2,
      originalMaxPositions: 64,
      shortFactor: new Array<number>(16).fill(2),
      longFactor: new Array<number>(16).fill(5),
      attentionFactor: null,
      mscaleAllDim: null,
    } as const;
    expect(inverseFrequencies(rope, 32, 64)[8]).toBeCloseTo(0.005, 15);
    expect(inverseFrequencies(rope, 32, 65)[8]).toBeCloseTo(0.002, 15);
    expect(attentionFactor(rope)).toBeCloseTo(Math.sqrt(1 + 1 / 6), 12);
    expect(attentionFactor({ ...rope, attentionFactor: 1.5 })).toBe(1.5);
  });
});

describe("scales", () => {
  it("attention factor: the ratio of YaRN's magnitude scales, or the one of mscale 1", () => {
    expect(attentionFactor(v3.rope)).toBe(1);
    const rope = { ...v3.rope, type: "yarn", factor: 40, mscale: null } as const;
    expect(attentionFactor(rope as typeof v3.rope)).toBeCloseTo(0.1 * Math.log(40) + 1, 12);
    expect(attentionFactor(miniCpm3.rope)).toBe(1);
  });

  it("softmax scale: with YaRN's square for deepseek_v3, without for minicpm3", () => {
    expect(softmaxScale(v3)).toBeCloseTo(0.135234, 6);
    expect(softmaxScale(miniCpm3)).toBeCloseTo(1 / Math.sqrt(96), 12);
  });

  it("query scale: 1 within the original 8192 positions, then a step at each multiple", () => {
    const { queryScaling } = mistral4.attention;
    expect([0, 8191].map((position) => queryScale(queryScaling, position))).toEqual([1, 1]);
    expect(queryScale(queryScaling, 8192)).toBeCloseTo(1 + 0.1 * Math.LN2, 12);
    expect(queryScale(queryScaling, 16383)).toBe(queryScale(queryScaling, 8192));
    expect(queryScale(queryScaling, 16384)).toBeCloseTo(1 + 0.1 * Math.log(3), 12);
    expect(queryScale(null, 1e6)).toBe(1);
  });
});

describe("tables", () => {
  it("rotary, positions=300, d_r=32: cosines, then sines, of position · frequency", () => {
    const table = rotaryTable(miniCpm3, 300);
    const frequencies = inverseFrequencies(miniCpm3.rope, 32, 300);
    expect(table).toHaveLength(300 * 32);
    expect([table[0], table[16]]).toEqual([1, 0]);
    expect(table[299 * 32 + 3]).toBe(Math.fround(Math.cos(299 * frequencies[3]!)));
    expect(table[299 * 32 + 16 + 15]).toBe(Math.fround(Math.sin(299 * frequencies[15]!)));
  });

  it("query scale: none within the original positions", () => {
    expect(queryScaleTable(mistral4, 8192)).toBeNull();
    expect(queryScaleTable(v3, 100000)).toBeNull();
    const table = queryScaleTable(mistral4, 8194)!;
    expect([table[8191], table[8193]]).toEqual([1, Math.fround(1 + 0.1 * Math.LN2)]);
  });
});
