import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { HubStandIn, standInCommit } from "../fixtures/hub-stand-in.ts";
import { shipped } from "./model-folders.ts";
import { type CliOptions, runCli } from "./run-cli.ts";

let hub: HubStandIn;
let home = "";
const repository = () => join(home, "hub", "models--tiny-lab--tiny-mla");
const snapshotFile = (file: string) => join(repository(), "snapshots", standInCommit, file);

/** Continues a text with the stand-in's model, whose files are those of the shipped one. */
function generate(env: Record<string, string> = {}, options: CliOptions = {}) {
  const parameters = ["generate", "tiny-lab/tiny-mla", "-p", "ROMEO:\n", "-n", "5", "--greedy"];
  const hubEnv = { HF_HOME: home, HF_ENDPOINT: hub.endpoint, HF_HUB_DOWNLOAD_TIMEOUT: "5", ...env };
  return runCli([...parameters, "--device", "cpu"], { ...options, env: hubEnv });
}

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), "cli-hub-"));
  hub = new HubStandIn();
  await hub.start();
  for (const file of readdirSync(shipped)) {
    hub.add(file, readFileSync(join(shipped, file)), file.endsWith(".safetensors"));
  }
});
afterEach(async () => {
  await hub.stop();
  rmSync(home, { recursive: true, force: true });
});

const continuation = /^ROMEO:\n.{5,}/s;

describe("generate with an id of the hub", () => {
  it("downloads into the standard cache folder, runs, and needs no network the next time", async () => {
    const first = await generate();
    expect(first.stderr).toMatch(/decode +5 tokens/);
    expect(first.stdout).toMatch(continuation);
    const { content } = hub.files.get("model.safetensors")!;
    expect(content.equals(readFileSync(snapshotFile("model.safetensors")))).toBe(true);
    const again = await generate({ HF_HUB_OFFLINE: "1", HF_ENDPOINT: "http://127.0.0.1:9" });
    expect(again.stdout).toBe(first.stdout);
    expect([first.code, again.code]).toEqual([0, 0]);
  });

  it("shows HF_TOKEN to a gated model's hub; without it one sentence says what to do", async () => {
    hub.token = "hf_secret";
    const refused = await generate();
    expect(refused.stderr).toMatch(/^error: .*HF_TOKEN.*\n$/);
    expect([refused.code, refused.stdout]).toEqual([1, ""]);
    const { code, stdout } = await generate({ HF_TOKEN: "hf_secret" });
    expect(stdout).toMatch(continuation);
    expect(code).toBe(0);
  });

  it("a broken download: one sentence, exit code 1, and the next run goes on where it broke off", async () => {
    hub.files.get("model.safetensors")!.cuts = [
      { after: 1_000_000, how: "close" },
      { after: 0, how: "close" },
    ];
    const { code, stdout, stderr } = await generate();
    // On a busy machine some of the million bytes are lost with the connection.
    const [, came = ""] =
      /^error: .*model\.safetensors broke off at (\d+) of \d+ bytes.*\n$/.exec(stderr) ?? [];
    expect(Number(came)).toBeGreaterThan(0);
    expect([code, stdout]).toEqual([1, ""]);
    expect(existsSync(snapshotFile("model.safetensors"))).toBe(false);
    hub.requests.length = 0;
    expect((await generate()).stdout).toMatch(continuation);
    expect(hub.requests.filter((request) => /cdn/.test(request)).at(-1)).toContain(`bytes=${came}-`);
  });

  it("Ctrl-C in the middle of a download: one sentence, exit code 130, nothing that counts as whole", async () => {
    hub.files.get("model.safetensors")!.cuts = [{ after: 500_000, how: "silence" }];
    const { code, stdout, stderr } = await generate(
      {},
      {
        onStart: (child) => {
          const timer = setInterval(() => {
            if (!hub.requests.some((request) => /cdn.*model\.safetensors/.test(request))) return;
            clearInterval(timer);
            setTimeout(() => child.kill("SIGINT"), 100);
          }, 20);
        },
      },
    );
    expect(stderr).toBe("Stopped by Ctrl-C.\n");
    expect([code, stdout]).toEqual([130, ""]);
    expect(existsSync(snapshotFile("model.safetensors"))).toBe(false);
    const { stdout: text } = await generate();
    expect(text).toMatch(continuation);
  });
});
