import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { changedDevice } from "../../tests/fixtures/changed-device.ts";
import { UserError } from "../base/errors.ts";
import type { Device, WebGpuLimits } from "../device/device.ts";
import { openDevice } from "../device/open.ts";
import { readModelConfig } from "../formats/model-folder.ts";
import { cacheFootprint } from "./cache-footprint.ts";
import { type OpenLanguageModelOptions, openLanguageModel } from "./language-model.ts";

const folder = fileURLToPath(new URL("../../models/shakespeare-mla", import.meta.url));
let device: Device;

beforeAll(async () => {
  device = await openDevice({ kind: "cpu", threads: 1 });
});
afterAll(() => device.close());

it("an fp8 cache of 256 + 32: 328 bytes a token and layer", async () => {
  const config = await readModelConfig(folder);
  expect(cacheFootprint(config, "fp8").bytesPerTokenAndLayer).toBe(256 + 2 * 4 + 32 * 2);
  const model = await openLanguageModel(folder, { device, cacheDtype: "fp8" });
  expect(model.maxContext).toBe(1024);
  model.close();
});

it("an fp8 cache of 200 + 32: refused in a sentence", async () => {
  const config = await readModelConfig(folder);
  const narrow = { ...config, attention: { ...config.attention, kvLoraRank: 200 } };
  await expect(openLanguageModel(folder, { device, config: narrow, cacheDtype: "fp8" })).rejects.toThrow(
    "An fp8 cache scales latent values in groups of 128 and this model has 200; use bf16.",
  );
});

describe("what does not fit", () => {
  const refusal = (options: Partial<OpenLanguageModelOptions>) => {
    const used = device.memory.usedBytes;
    const opened = openLanguageModel(folder, { device, ...options });
    return opened.then(
      () => expect.unreachable(),
      (error: Error) => {
        expect(device.memory.usedBytes).toBe(used);
        return error.message;
      },
    );
  };

  it("a cache: what it needs, for what, and how many tokens would fit", async () => {
    const message = await refusal({ cacheTokens: 4_000_000 });
    expect(message).toMatch(
      /^The model needs 8\.0 MiB for its weights, 8\.6 GiB for a cache of 4000000 tokens and \d\.\d MiB to compute with, but the cpu device has [34]\.\d GiB: a cache of at most \d+ tokens would fit\.$/,
    );
    const tokens = Number(/at most (\d+)/.exec(message)?.[1]);
    const model = await openLanguageModel(folder, { device, cacheTokens: tokens });
    expect(model.runner.pageCount).toBe(tokens / 64);
    model.close();
  });

  it("a cache larger than one buffer of WebGPU", async () => {
    const webgpu = { bindingBytes: 2 ** 27, bufferBytes: 2 ** 28 } as WebGpuLimits;
    const limited = changedDevice(device, { limits: { ...device.limits, webgpu } });
    await expect(openLanguageModel(folder, { device: limited, cacheTokens: 2 ** 17 })).rejects.toThrow(
      "A cache of 131072 tokens takes 288 MiB, more than a buffer of this adapter holds or binds: at most 116480 tokens would fit.",
    );
  });

  it("too many sequences at a time", async () => {
    expect(await refusal({ maxDecodeRows: 2_000_000 })).toMatch(
      /compute with, .*: fewer sequences at a time, or/,
    );
  });

  it("any buffer: all the others are given back", async () => {
    const used = device.memory.usedBytes;
    let allowed = 0;
    const short = Object.create(device, {
      allocate: {
        value: (bytes: number, label: string) => {
          if (allowed-- === 0) throw new UserError(`no room for ${label}`);
          return device.allocate(bytes, label);
        },
      },
      limits: { value: device.limits },
      memory: { get: () => device.memory },
      write: { value: device.write.bind(device) },
    }) as Device;
    const missing = new Set<string>();
    for (let count = 0; count < 200; count += 2) {
      allowed = count;
      const opened = await openLanguageModel(folder, { device: short }).catch(
        (error: Error) => error.message,
      );
      if (typeof opened !== "string") {
        opened.close();
        break;
      }
      missing.add(opened);
      expect(device.memory.usedBytes).toBe(used);
    }
    expect(missing.size).toBeGreaterThan(20);
    expect([...missing].join()).toMatch(/rotary table|latent cache|step inputs|hidden state/);
  });
});
