import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { runCli } from "./run-cli.ts";

const folder = mkdtempSync(join(tmpdir(), "plan-"));
afterAll(() => rmSync(folder, { recursive: true }));
const shipped = join(import.meta.dirname, "../../models/shakespeare-mla");

/** What these tests look at of the JSON line of `flashmla accuracy`. */
interface AccuracyLine {
  readonly study: {
    readonly attention: readonly unknown[];
    readonly skipped: readonly { readonly reason: string }[];
  };
}

const lastLine = (text: string): unknown => JSON.parse(text.trimEnd().split("\n").at(-1)!);

describe("flashmla plan", () => {
  it("prints a table and JSON, and writes a report that holds its charts", async () => {
    const html = join(folder, "plan.html");
    const { code, stdout } = await runCli(["plan", "--gpu", "a100-80gb", "--price", "2.5", "--html", html]);
    expect(code).toBe(0);
    expect(stdout).toContain("full multi-head");
    expect(stdout).toContain("66.7 %");
    expect(lastLine(stdout)).toMatchObject({ input: { pricePerHour: 2.5 }, plan: { totalWeights: 7e9 } });
    expect(readFileSync(html, "utf8").match(/<svg/g)).toHaveLength(6);
  });
  it("--json prints one line; a folder, a preset and plain numbers are models", async () => {
    const models = [
      [shipped, "--prompt", "100", "--output", "100"],
      ["deepseek-v2-lite"],
      ["--params", "1e9", "--layers", "16", "--hidden", "2048", "--heads", "16"],
    ];
    for (const model of models) {
      const { code, stdout } = await runCli(["plan", ...model, "--json"]);
      expect(code).toBe(0);
      expect(stdout.trimEnd().split("\n")).toHaveLength(1);
    }
  });
  it("a quantised checkpoint's config is planned for", async () => {
    const config = JSON.parse(readFileSync(join(shipped, "config.json"), "utf8"));
    const path = join(folder, "config.json");
    writeFileSync(path, JSON.stringify({ ...config, quantization_config: { quant_method: "fp8" } }));
    const { code } = await runCli([
      "plan",
      path,
      "--prompt",
      "9",
      "--output",
      "9",
      "--weights",
      "fp8",
      "--json",
    ]);
    expect(code).toBe(0);
  });
  it.concurrent.each([
    ["a rate of 0", ["--rps", "0"], /Expected a number above 0/],
    ["an unknown GPU", ["--gpu", "h300"], /no data on the GPU "h300"; choose one of/],
    ["a GPU without a price", ["--gpu", "mi300x"], /give one with --price/],
    [
      "results of another kind",
      ["--results", join(shipped, "config.json")],
      /is no report of flashmla bench/,
    ],
    ["no results", ["--results", "none.json"], /results file none\.json cannot be read .*ENOENT/],
    ["no GPU file", ["--gpus", "none.json"], /GPU file none\.json cannot be read .*give a JSON file/],
    ["an unknown model", ["nobody"], /There is no model "nobody"; give a preset/],
    ["half a model", ["--params", "7e9"], /needs --params, --layers, --hidden and --heads/],
    ["a request past the context", [shipped], /longer than the model's context of 1024/],
    ["more GPUs than heads", ["--tensor-parallel", "64"], /the model has 32/],
  ])("%s: one sentence, exit code 1", async (_, parameters, message) => {
    const { code, stdout, stderr } = await runCli(["plan", ...parameters]);
    expect(stderr).toMatch(message);
    expect(stdout).toBe("");
    expect(code).toBe(1);
  });
});

describe("flashmla accuracy", () => {
  it("measures short contexts, says what was left out, and writes the report and the results", async () => {
    const html = join(folder, "accuracy.html");
    const flags = ["--no-model", "--lengths", "64,256,1024", "--width", "128", "--heads", "2"];
    const { code, stdout } = await runCli(["accuracy", ...flags, "--html", html, "--out", folder]);
    expect(code).toBe(0);
    expect(stdout).toContain("far needle");
    expect(lastLine(stdout)).toMatchObject({ name: "accuracy", model: null, study: { skipped: [] } });
    expect(readFileSync(html, "utf8")).toContain("<svg");
    const written = readdirSync(folder, { recursive: true }).map(String);
    expect(written.filter((path) => path.endsWith("-accuracy.json"))).toHaveLength(1);
  });
  it("keeps what was finished when it is interrupted or out of time, and names the rest", async () => {
    const flags = ["accuracy", "--no-model", "--lengths", "1024,262144", "--json"];
    const { code, stdout } = await runCli(flags, { interruptAfterMs: 4000 });
    expect(code).toBe(130);
    const { study } = lastLine(stdout) as AccuracyLine;
    expect(study.attention.length).toBeGreaterThan(0);
    expect(study.skipped.at(-1)!.reason).toBe("stopped by Ctrl-C");
    const late = await runCli([...flags, "--time-limit", "1"]);
    expect(late.code).toBe(0);
    const cut = lastLine(late.stdout) as AccuracyLine;
    expect(cut.study.attention.length).toBeGreaterThan(0);
    expect(cut.study.skipped.at(-1)!.reason).toMatch(/time limit.*; raise --time-limit$/);
  });
  it.concurrent.each([
    ["lengths that do not ascend", ["--lengths", "64,32"], /Expected ascending numbers/],
    ["an unknown device", ["--device", "cpu,tpu"], /Expected one of cuda, webgpu, cpu, or cuda:1/],
    ["no heads", ["--heads", "0"], /Expected an integer from 1/],
    ["a width without kernels", ["--width", "100"], /Allowed choices are 128, 256, 512/],
    ["a device that is not here", ["--device", "cuda"], /CUDA|NVIDIA|koffi/],
  ])("refuses %s in a sentence", async (_, flags, message) => {
    const { code, stdout, stderr } = await runCli(["accuracy", "--no-model", ...flags]);
    expect(stderr).toMatch(message);
    expect(stdout).toBe("");
    expect(code).toBe(1);
  });
  it("refuses a text that is not there", async () => {
    const { code, stderr } = await runCli([
      "accuracy",
      "--text",
      join(folder, "none.txt"),
      "--lengths",
      "64",
    ]);
    expect(stderr).toMatch(/cannot be read .*give another with --text/);
    expect(code).toBe(1);
  });
});
