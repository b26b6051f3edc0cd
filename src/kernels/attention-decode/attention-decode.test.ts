import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testDevices } from "../../../tests/fixtures/devices.ts";
import type { Device } from "../../device/device.ts";
import { openDevice } from "../../device/open.ts";
import { attentionRowReference, visiblePositions } from "../common/attention-reference.ts";
import { CaseMemory } from "../common/cases/case-memory.ts";
import { attentionDecode, attentionDecodeCost, attentionDecodeWorkspaceBytes } from "./attention-decode.ts";
import { attentionDecodeCases } from "./cases.ts";

describe.each(testDevices)("attention-decode, $name", ({ open }) => {
  let device: Device;
  beforeAll(async () => {
    device = await open();
  });
  afterAll(() => device.close());

  it.each(attentionDecodeCases().map((one) => [one.shape, one] as const))("%s", async (_, kernelCase) => {
    const memory = new CaseMemory(device);
    for (const finding of await kernelCase.prepare().check(memory)) expect(finding.problem).toBeNull();
    memory.free();
    expect(device.memory.usedBytes).toBe(0);
  });
});

describe("attention-decode", () => {
  const sizes = { batch: 2, sQ: 1, heads: 8, kvHeads: 2, headWidth: 64, maxLen: 1000 };

  it("reference: two tokens by hand, and none", () => {
    const row = { query: [1, 0], softmaxScale: Math.LN2 };
    const two = {
      ...row,
      keys: [
        [2, 5],
        [1, -3],
      ],
      values: [
        [3, 0],
        [0, 6],
      ],
    };
    // Scores 2·ln 2 and ln 2: weights 4 and 2 of 6.
    const { out, lse } = attentionRowReference(two);
    expect(out[0]).toBeCloseTo(2, 12);
    expect(out[1]).toBeCloseTo(2, 12);
    expect(lse).toBeCloseTo(Math.log(6), 12);
    expect(attentionRowReference({ ...row, keys: [], values: [] })).toEqual({
      out: new Float64Array(2),
      lse: Number.POSITIVE_INFINITY,
    });
  });

  it.each([
    ["causal", undefined, 0, { from: 0, to: 8 }],
    ["causal", 3, 1, { from: 6, to: 9 }],
    ["full", 3, 0, { from: 7, to: 10 }],
  ] as const)("%s, window %s, token %i of 3 of 10: %j", (mask, window, token, expected) => {
    expect(visiblePositions({ length: 10, sQ: 3, token, mask, window })).toEqual(expected);
  });

  it("costs: 4·heads·width FLOPs a token, keys and values once", () => {
    const cost = attentionDecodeCost(sizes, "bf16", 1000);
    expect(cost).toEqual({ flops: 2_048_000, bytes: 1000 * 2 * 2 * 64 * 2 + 2 * 2 * 8 * 64 * 4 });
  });

  it.each([
    [{ heads: 7 }, /heads must be a multiple of kvHeads/],
    [{ headWidth: 24 }, /headWidth must be a multiple of 16/],
    [{ headWidth: 512 }, /headWidth must be .* 16 to 256/],
    [{ window: 0 }, /window must be an integer of at least 1/],
    [{ maxLen: 0 }, /maxLen/],
  ])("refuses %j", (change, message) => {
    expect(() => attentionDecodeWorkspaceBytes({ ...sizes, ...change })).toThrow(message);
  });

  it("refuses buffers that are too small, naming them", async () => {
    const device = await openDevice({ kind: "cpu", threads: 1 });
    const room = (bytes: number) => device.allocate(bytes, "room");
    const args = {
      ...{ ...sizes, q: room(4096), maxPages: 16, mask: "causal" as const, softmaxScale: 1 },
      cache: { keys: room(65536), values: room(65536), dtype: "bf16" as const, pageSize: 64 },
      blockTable: room(128),
      cacheSeqlens: room(8),
      workspace: room(attentionDecodeWorkspaceBytes(sizes)),
      out: room(4096),
      lse: room(64),
    };
    const enqueue = (change: object) => () =>
      device.record((launch) => attentionDecode(launch, { ...args, ...change })).free();
    expect(enqueue({})).not.toThrow();
    expect(enqueue({ q: room(4000) })).toThrow(/^q: expected a buffer of at least 4096 bytes/);
    expect(enqueue({ workspace: room(4) })).toThrow(/^workspace/);
    expect(enqueue({ maxPages: 15 })).toThrow(/^maxPages/);
    expect(enqueue({ cache: { ...args.cache, pages: 9 } })).toThrow(/^cache.pages/);
    await device.close();
  });
});
