import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { HubStandIn, standInCommit } from "../../tests/fixtures/hub-stand-in.ts";
import { UserError } from "../base/errors.ts";
import type { DownloadProgress } from "./hub.ts";
import { resolveModel } from "./hub.ts";

const weights = Buffer.alloc(300_000);
for (let i = 0; i < weights.length; i++) weights[i] = (i * 31) ^ (i >> 8);
const name = "tiny-lab/tiny-mla";

let hub: HubStandIn;
let home = "";
let env: Record<string, string> = {};
const repository = () => join(home, "hub", "models--tiny-lab--tiny-mla");
const snapshot = () => join(repository(), "snapshots", standInCommit);
const resolve = (model = name, onProgress: DownloadProgress = () => {}) =>
  resolveModel(model, { env, onProgress });
const fail = async (model = name): Promise<string> => {
  const error = await resolve(model).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(UserError);
  return (error as Error).message;
};
const blobs = () => (existsSync(join(repository(), "blobs")) ? readdirSync(join(repository(), "blobs")) : []);

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), "hub-"));
  hub = new HubStandIn();
  await hub.start();
  env = { HF_HOME: home, HF_ENDPOINT: `${hub.endpoint}/`, HF_HUB_DOWNLOAD_TIMEOUT: "5" };
  for (const file of ["README.md", "pytorch_model.bin", "consolidated.safetensors", "onnx.json"])
    hub.add(file, "unused");
  hub.add("config.json", '{"model_type":"minicpm3"}');
  hub.add("tokenizer.json", "{}");
  hub.add("tokenizer_config.json", "");
  hub.add("chat_template.jinja", "{{ messages }}");
  hub.add("model.safetensors", weights, true);
});
afterEach(async () => {
  await hub.stop();
  rmSync(home, { recursive: true, force: true });
});

describe("resolveModel", () => {
  it("gives a folder as it is, and asks nobody", async () => {
    expect(await resolve(home)).toBe(home);
    expect(hub.requests).toEqual([]);
  });

  it.each([
    "no-such-folder",
    "./tiny-lab/tiny-mla",
    "/tiny-lab/tiny-mla",
    "../tiny-mla",
    "a/b/c",
    "tiny-lab/..",
    "tiny-lab/tiny--mla",
    "tiny-lab/tiny-mla@",
    "tiny-lab/tiny-mla@../main",
    "tiny-lab/tiny-mla@a/../../b",
    "tiny-lab/tiny-mla@main@main",
  ])("takes %s for a folder that is not there", async (model) => {
    expect(await fail(model)).toBe(
      `there is no folder ${model}; give a model's folder or its owner/name on the hub`,
    );
    expect(hub.requests).toEqual([]);
  });

  it("asks for the folder when a file is given", async () => {
    const file = join(home, "model.safetensors");
    writeFileSync(file, "");
    expect(await fail(file)).toMatch(/model\.safetensors is a file; give the folder/);
  });

  it("refuses arguments of the wrong kind", async () => {
    await expect(resolveModel(3 as never)).rejects.toThrow(TypeError);
    await expect(resolveModel("")).rejects.toThrow(RangeError);
  });
});

describe("a model of the hub", () => {
  it("comes down into the standard cache, the needed files only", async () => {
    expect(await resolve()).toBe(snapshot());
    const files = [
      "chat_template.jinja",
      "config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ];
    expect(readdirSync(snapshot()).sort()).toEqual(files);
    expect(readFileSync(join(snapshot(), "model.safetensors")).equals(weights)).toBe(true);
    expect(readFileSync(join(snapshot(), "config.json"), "utf8")).toBe('{"model_type":"minicpm3"}');
    expect(readFileSync(join(repository(), "refs", "main"), "utf8")).toBe(standInCommit);
    expect(readlinkSync(join(snapshot(), "model.safetensors"))).toMatch(/^\.\.\/\.\.\/blobs\/[0-9a-f]{64}$/);
    expect(blobs()).toHaveLength(files.length);
  });

  it("reports the bytes of each file as they come", async () => {
    const seen = new Map<string, number[]>();
    await resolve(name, (file, loaded, total) => {
      expect(total).toBe(hub.files.get(file)!.content.length);
      seen.set(file, [...(seen.get(file) ?? []), loaded]);
    });
    const loaded = seen.get("model.safetensors")!;
    expect(loaded).toEqual([...loaded].sort((a, b) => a - b));
    expect([loaded[0], loaded.at(-1)]).toEqual([0, weights.length]);
    expect(seen.has("README.md")).toBe(false);
  });

  it("is not fetched again, by name or by commit", async () => {
    await resolve();
    hub.requests.length = 0;
    const before = blobs();
    await resolve(name, () => expect.fail("nothing should come down"));
    expect(hub.requests.every((request) => request.startsWith("GET /api/"))).toBe(true);
    hub.requests.length = 0;
    expect(await resolve(`${name}@${standInCommit}`)).toBe(snapshot());
    expect(hub.requests).toEqual([]);
    expect(blobs()).toEqual(before);
  });

  it("opens without a network, when the hub is ill, and with HF_HUB_OFFLINE", async () => {
    await resolve();
    hub.status = 503;
    expect(await resolve()).toBe(snapshot());
    await hub.stop();
    expect(await resolve()).toBe(snapshot());
    env.HF_HUB_OFFLINE = "1";
    expect(await resolve()).toBe(snapshot());
    await hub.start();
  });

  it("fetches only what is missing from a cache that another client filled in part", async () => {
    await resolve();
    rmSync(join(snapshot(), "tokenizer.json"));
    const blob = readlinkSync(join(snapshot(), "config.json")).slice("../../blobs/".length);
    writeFileSync(join(repository(), "blobs", blob), "short");
    const fetched = new Set<string>();
    await resolve(name, (file) => fetched.add(file));
    expect([...fetched]).toEqual(["config.json"]);
    expect(readFileSync(join(snapshot(), "config.json"), "utf8")).toBe('{"model_type":"minicpm3"}');
    expect(existsSync(join(snapshot(), "tokenizer.json"))).toBe(true);
  });

  it("comes down in shards by its index, the index before them", async () => {
    hub.files.delete("model.safetensors");
    const [first, second] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    hub.add(second, weights.subarray(1000), true);
    hub.add(first, weights.subarray(2000), true);
    hub.add(
      "model.safetensors.index.json",
      JSON.stringify({ weight_map: { a: first, b: second, c: first } }),
    );
    await resolve();
    expect(readdirSync(snapshot()).filter((file) => file.includes("model"))).toEqual([
      first,
      second,
      "model.safetensors.index.json",
    ]);
    rmSync(join(snapshot(), second));
    await hub.stop();
    expect(await fail()).toMatch(/cannot reach .*ECONNREFUSED.*the cache does not hold it whole/);
    await hub.start();
    await resolve();
    expect(readFileSync(join(snapshot(), second)).equals(weights.subarray(1000))).toBe(true);
  });

  it("comes down by HF_HUB_CACHE, by HUGGINGFACE_HUB_CACHE and by XDG_CACHE_HOME", async () => {
    const commit = join("models--tiny-lab--tiny-mla", "snapshots", standInCommit);
    const { HF_ENDPOINT } = env;
    for (const [variables, expected] of [
      [{ HF_HOME: join(home, "x"), HF_HUB_CACHE: join(home, "a") }, join(home, "a", commit)],
      [{ HUGGINGFACE_HUB_CACHE: join(home, "b") }, join(home, "b", commit)],
      [{ XDG_CACHE_HOME: join(home, "c") }, join(home, "c", "huggingface", "hub", commit)],
    ] as const) {
      env = { ...variables, HF_ENDPOINT: HF_ENDPOINT! };
      expect(await resolve()).toBe(expected);
    }
  });
});

describe("access", () => {
  beforeEach(() => {
    hub.token = "hf_right";
  });

  it.each(["gated", "private"] as const)("to a %s model takes the token of HF_TOKEN", async (gate) => {
    hub.gate = gate;
    expect(await fail()).toMatch(/tiny-lab\/tiny-mla is no folder here .*private or gated, set HF_TOKEN/);
    env.HF_TOKEN = "hf_wrong";
    expect(await fail()).toMatch(/tiny-lab\/tiny-mla is gated; ask for access .* set HF_TOKEN/);
    expect(blobs()).toEqual([]);
    env.HF_TOKEN = " hf_right\n";
    expect(await resolve()).toBe(snapshot());
    expect(hub.redirectedWithToken).toBe(false);
  });

  it("takes the token in the file under HF_HOME or at HF_TOKEN_PATH", async () => {
    writeFileSync(join(home, "token"), "hf_right\n");
    expect(await resolve()).toBe(snapshot());
    rmSync(repository(), { recursive: true });
    env.HF_TOKEN_PATH = join(home, "other");
    expect(await fail()).toMatch(/set HF_TOKEN/);
    writeFileSync(env.HF_TOKEN_PATH, "hf_right");
    expect(await resolve()).toBe(snapshot());
  });

  it("is not asked for again when the model is there, but a refusal is not hidden by the cache", async () => {
    hub.gate = "private";
    env.HF_TOKEN = "hf_right";
    await resolve();
    env.HF_TOKEN = "hf_wrong";
    expect(await fail()).toMatch(/gated/);
  });
});

describe("a failure", () => {
  it("of a model that is not there names it", async () => {
    expect(await fail("tiny-lab/other")).toMatch(/has no model tiny-lab\/other with the revision main/);
    expect(await fail(`${name}@v9`)).toMatch(/has no model tiny-lab\/tiny-mla with the revision v9/);
  });

  it("of the network or the hub names the address", async () => {
    hub.status = 503;
    expect(await fail()).toMatch(/^http:\/\/127\.0\.0\.1:\d+ answered with status 503/);
    hub.status = 429;
    expect(await fail()).toMatch(/takes no more requests/);
    await hub.stop();
    expect(await fail()).toMatch(/^cannot reach http:\/\/127\.0\.0\.1:\d+ .*\(ECONNREFUSED\)/);
    env.HF_HUB_OFFLINE = "1";
    expect(await fail()).toMatch(/HF_HUB_OFFLINE/);
    await hub.start();
  });

  it.each([
    ["HF_ENDPOINT", "example"],
    ["HF_ENDPOINT", "ftp://example"],
    ["HF_TOKEN", "two words"],
    ["HF_HUB_ETAG_TIMEOUT", "soon"],
    ["HF_HUB_DOWNLOAD_TIMEOUT", "0"],
  ])("of a setting names it: %s=%s", async (variable, value) => {
    env[variable] = value;
    expect(await fail()).toContain(variable);
  });

  it("of a model without config, weights or a shard names what lacks", async () => {
    hub.files.delete("model.safetensors");
    expect(await fail()).toMatch(/has no safetensors weights/);
    hub.add("model.safetensors.index.json", '{"weight_map":{"a":"s.safetensors"}}');
    expect(await fail()).toMatch(/lacks s\.safetensors, which its model\.safetensors\.index\.json names/);
    hub.files.delete("config.json");
    expect(await fail()).toMatch(/has no config\.json/);
  });

  it("of an address that is no hub says so", async () => {
    env.HF_ENDPOINT = `${hub.endpoint}/api/models/tiny-lab/tiny-mla/revision/main?`;
    expect(await fail()).toMatch(/check/);
  });

  it("of the disk: no room for the weights", async () => {
    const entry = hub.files.get("model.safetensors")!;
    Object.defineProperty(entry.content, "length", { value: 2 ** 50 });
    expect(await fail()).toMatch(/1125899\.9 GB are to be downloaded but the disk of .* has \d+\.\d GB left/);
  });

  it("of the cache folder: a file in its place", async () => {
    writeFileSync(join(home, "hub"), "");
    expect(await fail()).toMatch(/^cannot write .*hub/);
  });
});

describe("a broken download", () => {
  it("is taken up where it broke off, several times over", async () => {
    hub.files.get("model.safetensors")!.cuts = [
      { after: 100_000, how: "close" },
      { after: 50_000, how: "close" },
    ];
    expect(await resolve()).toBe(snapshot());
    expect(readFileSync(join(snapshot(), "model.safetensors")).equals(weights)).toBe(true);
    const ranges = hub.requests.filter((request) => /cdn.*bytes=[1-9]/.test(request));
    expect(ranges.map((request) => request.split(" ")[2])).toEqual([
      "bytes=100000-299999",
      "bytes=150000-299999",
    ]);
  });

  it("that does not go on leaves nothing that counts as whole, and goes on the next time", async () => {
    const file = hub.files.get("model.safetensors")!;
    file.cuts = [
      { after: 100_000, how: "close" },
      { after: 0, how: "close" },
    ];
    expect(await fail()).toMatch(
      /download of model\.safetensors broke off at 100000 of 300000 bytes .*run the same command again/,
    );
    expect(existsSync(join(snapshot(), "model.safetensors"))).toBe(false);
    expect(existsSync(join(repository(), "refs"))).toBe(false);
    expect(blobs().filter((blob) => blob.endsWith(".incomplete"))).toHaveLength(1);
    env.HF_HUB_OFFLINE = "1";
    expect(await fail()).toMatch(/does not hold tiny-lab\/tiny-mla whole/);
    env.HF_HUB_OFFLINE = "";
    hub.requests.length = 0;
    await resolve();
    expect(hub.requests.filter((request) => request.includes("cdn")).at(-1)).toMatch(/bytes=100000-299999$/);
    expect(readFileSync(join(snapshot(), "model.safetensors")).equals(weights)).toBe(true);
    expect(blobs().filter((blob) => blob.endsWith(".incomplete"))).toEqual([]);
  });

  it("that falls silent is given up after the time, and taken up again", async () => {
    env.HF_HUB_DOWNLOAD_TIMEOUT = "0.3";
    hub.files.get("model.safetensors")!.cuts = [
      { after: 1000, how: "silence" },
      { after: 0, how: "silence" },
    ];
    expect(await fail()).toMatch(/broke off at 1000 of 300000 bytes \(no byte came for 0\.3 seconds\)/);
    await resolve();
    expect(readFileSync(join(snapshot(), "model.safetensors")).equals(weights)).toBe(true);
  });

  it("whose remains are wrong starts anew", async () => {
    mkdirSync(join(repository(), "blobs"), { recursive: true });
    hub.files.get("model.safetensors")!.cuts = [
      { after: 100_000, how: "close" },
      { after: 0, how: "close" },
    ];
    await fail();
    const [partial] = blobs().filter((blob) => blob.endsWith(".incomplete"));
    for (const remains of [Buffer.alloc(200_000, 1), Buffer.alloc(300_000, 1), Buffer.alloc(400_000, 1)]) {
      writeFileSync(join(repository(), "blobs", partial!), remains);
      await resolve();
      expect(readFileSync(join(snapshot(), "model.safetensors")).equals(weights)).toBe(true);
      rmSync(join(snapshot(), "model.safetensors"));
      rmSync(join(repository(), "blobs", partial!.replace(".incomplete", "")));
    }
  });

  it.each([
    ["of other bytes", Buffer.alloc(weights.length, 1)],
    ["that is too long", Buffer.concat([weights, weights])],
    ["that is too short", weights.subarray(0, 1000)],
  ])("with content %s is refused and removed", async (_, sent) => {
    hub.files.get("model.safetensors")!.sent = sent;
    expect(await fail()).toMatch(/model\.safetensors (that came does not match its hash|broke off at)/);
    expect(existsSync(join(snapshot(), "model.safetensors"))).toBe(false);
    expect(blobs().filter((blob) => /^[0-9a-f]{64}$/.test(blob))).toEqual([]);
  });

  it("with a small file of other bytes is refused", async () => {
    hub.files.get("tokenizer.json")!.sent = Buffer.from("[]");
    expect(await fail()).toMatch(/tokenizer\.json that came does not match its hash/);
  });

  it("by the caller ends with the caller's reason", async () => {
    const controller = new AbortController();
    const onProgress = (_: string, loaded: number) => loaded > 1000 && controller.abort(new Error("Ctrl-C"));
    hub.files.get("model.safetensors")!.cuts = [{ after: 2000, how: "silence" }];
    await expect(resolveModel(name, { env, onProgress, signal: controller.signal })).rejects.toThrow(
      "Ctrl-C",
    );
    expect(await resolve()).toBe(snapshot());
  });

  it("by two callers at once gives both the whole", async () => {
    expect(await Promise.all([resolve(), resolve(), resolve()])).toEqual([
      snapshot(),
      snapshot(),
      snapshot(),
    ]);
    expect(readFileSync(join(snapshot(), "model.safetensors")).equals(weights)).toBe(true);
    expect(blobs().filter((blob) => blob.endsWith(".incomplete"))).toEqual([]);
  });
});
