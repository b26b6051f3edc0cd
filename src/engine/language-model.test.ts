import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Device } from "../device/device.ts";
import { openDevice } from "../device/open.ts";
import { readModelConfig } from "../formats/model-folder.ts";
import { cacheFootprint, openLanguageModel } from "./language-model.ts";

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
