import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { HubStandIn } from "../../../tests/fixtures/hub-stand-in.ts";
import { UserError } from "../../base/errors.ts";
import { resolveModel } from "../hub.ts";
import { fetchConfigText } from "./fetch-config.ts";
import { readHubSettings } from "./settings.ts";

const model = { name: "tiny-lab/tiny-mla", revision: "main" };
const config = '{"model_type":"minicpm3"}';
let hub: HubStandIn;
let home = "";
const settings = (more: Record<string, string> = {}) =>
  readHubSettings({ HF_HOME: home, HF_ENDPOINT: hub.endpoint, HF_HUB_DOWNLOAD_TIMEOUT: "5", ...more });

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), "config-"));
  hub = new HubStandIn();
  await hub.start();
  hub.add("config.json", config);
  hub.add("tokenizer.json", "{}");
  hub.add("tokenizer_config.json", "{}");
  hub.add("model.safetensors", Buffer.alloc(1000), true);
});
afterEach(async () => {
  await hub.stop();
  rmSync(home, { recursive: true, force: true });
});

it("fetches config.json and no weights", async () => {
  expect(await fetchConfigText(model, await settings(), undefined)).toBe(config);
  expect(hub.requests.filter((request) => request.includes("safetensors"))).toEqual([]);
});

it("reads the cache where it holds the model, offline too", async () => {
  await resolveModel(model.name, { env: { HF_HOME: home, HF_ENDPOINT: hub.endpoint } });
  const asked = hub.requests.length;
  expect(await fetchConfigText(model, await settings({ HF_HUB_OFFLINE: "1" }), undefined)).toBe(config);
  expect(hub.requests.length).toBe(asked);
});

it("refuses in a sentence: no such model, no config.json, offline", async () => {
  const other = { name: "tiny-lab/other", revision: "main" };
  await expect(fetchConfigText(other, await settings(), undefined)).rejects.toThrow(UserError);
  await expect(fetchConfigText(model, await settings({ HF_HUB_OFFLINE: "1" }), undefined)).rejects.toThrow(
    /HF_HUB_OFFLINE is set/,
  );
  hub.files.delete("config.json");
  await expect(fetchConfigText(model, await settings(), undefined)).rejects.toThrow(/has no config\.json/);
});
