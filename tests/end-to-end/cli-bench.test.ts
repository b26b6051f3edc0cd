import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { runCli } from "./run-cli.ts";

const folder = mkdtempSync(join(tmpdir(), "bench-"));
afterAll(() => rmSync(folder, { recursive: true }));

const kernel = (...flags: string[]) => runCli(["bench", "kernel", "--rounds", "1", ...flags]);

describe("flashmla bench kernel", () => {
  it("prints both tables, then one JSON object, and writes the same under the machine's name", async () => {
    const flags = ["--case", "mla-epilogue s=512", "--threads", "1,2", "--out", folder, "--name", "x"];
    const { code, stdout, stderr } = await kernel(...flags);
    expect(code).toBe(0);
    expect(stdout).toMatch(/threads\s+multiply-add\s+read/);
    expect(stdout).toMatch(/mla-epilogue b=1 .* 2 .* (memory|compute)/);
    expect(stderr).toContain("[1/1] mla-epilogue");
    const report = JSON.parse(stdout.trimEnd().split("\n").at(-1)!);
    expect(report.results.map(({ threads }: { threads: number }) => threads)).toEqual([1, 2]);
    expect(report.ceilings).toHaveLength(2);
    const [file] = readdirSync(join(folder, report.machine.slug));
    expect(file).toMatch(/^\d{4}-\d\d-\d\d-x\.json$/);
    expect(JSON.parse(readFileSync(join(folder, report.machine.slug, file!), "utf8"))).toEqual(report);
  });

  it("--json prints the object alone; --variant simd has no relaxed-simd", async () => {
    const { code, stdout } = await kernel(
      "--case",
      "prologue",
      "--threads",
      "1",
      "--json",
      "--variant",
      "simd",
    );
    expect(code).toBe(0);
    expect(stdout.trimEnd().split("\n")).toHaveLength(1);
    expect(JSON.parse(stdout).features).toEqual(["simd"]);
  });

  it.each([
    [["--case", "nothing like this"], /No case matches "nothing like this".*\n\s+mla-decode/],
    [["--threads", "0"], /from 1 to 64/],
    [["--variant", "avx"], /relaxed, simd/],
    [["--name", "../x"], /letters, digits, dots and dashes/],
  ])("%j: one clear message, exit code 1", async (flags, message) => {
    const { code, stderr } = await kernel(...flags);
    expect(code).toBe(1);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n\s+at /);
  });
});

describe("flashmla bench model", () => {
  it("the shipped model: a table, ceilings, memory, and one JSON object as the last line", async () => {
    const flags = ["--prefill", "16", "--contexts", "8,16", "--steps", "2", "--device", "cpu"];
    const { code, stdout, stderr } = await runCli(["bench", "model", ...flags]);
    expect(code).toBe(0);
    expect(stderr).toContain("decode at 16 cached tokens");
    expect(stdout).toMatch(/^work +ms +tokens\/s +GB\/s +of read ceiling$/m);
    expect(stdout).toMatch(/^decode at 16 +\d\S* +\d\S* +\d\S* +\d+ %$/m);
    expect(stdout).toMatch(/^ceilings: reads \d\S* GB\/s, multiplies \d\S* GFLOPS$/m);
    const report = JSON.parse(stdout.trimEnd().split("\n").at(-1)!);
    expect(report.decode.map(({ cachedTokens }: { cachedTokens: number }) => cachedTokens)).toEqual([8, 16]);
    expect(report.ceilings.bytesPerSecond).toBeGreaterThan(0);
  });

  it.each([
    [["--prefill", "0"], /goes with --shape alone/],
    [["--contexts", "16,8"], /ascending numbers/],
    [["--contexts", "4096"], /context/],
    [["--shape", "7t"], /7t/],
    [["--shape", "tiny", "--cells", "99999999999x64"], /Expected pairs of batch \(to 65536\)/],
    [["--shape", "tiny", "--cells", "1x99999999"], /a cache of at most \d+ tokens would fit/],
    [["--shape", "mla-7b", "--cells", "1x64"], /needs 11\.4 GiB for its weights/],
  ])("%j: one clear message, exit code 1", async (flags, message) => {
    const { code, stdout, stderr } = await runCli(["bench", "model", "--device", "cpu", ...flags]);
    expect(code).toBe(1);
    expect(stdout).toBe("");
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n\s+at /);
  });
});
