import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { runCli } from "./run-cli.ts";

const small = ["bench", "compare", "--preset", "tiny", "--batches", "1", "--contexts", "64,96"];

describe("bench compare", () => {
  it("prints tables, writes the page and the result, and ends with one line of JSON", async () => {
    const folder = mkdtempSync(join(tmpdir(), "flashmla-compare-"));
    const html = join(folder, "compare.html");
    const { code, stdout } = await runCli([...small, "--html", html, "--out", folder]);
    expect(code).toBe(0);
    expect(stdout).toContain("20 of 20 rows were measured");
    expect(stdout).toMatch(/latent d_c=512 fp8 faster than latent d_c=512/);
    const report = JSON.parse(stdout.trim().split("\n").at(-1)!) as { rows: unknown[]; isComplete: boolean };
    expect(report.rows).toHaveLength(20);
    expect(report.isComplete).toBe(true);
    expect(readFileSync(html, "utf8")).toMatch(/<svg[\s\S]*The published claims/);
    rmSync(folder, { recursive: true });
  });

  it("says of every row that does not fit the device what it needs", async () => {
    const { code, stdout } = await runCli([...small, "--preset", "7b", "--scopes", "model", "--json"]);
    expect(code).toBe(0);
    const report = JSON.parse(stdout) as { rows: { outcome: { status: string; reason: string } }[] };
    for (const { outcome } of report.rows) {
      expect(outcome.status).toBe("no memory");
      expect(outcome.reason).toMatch(/needs 1\d\.\d GB and the device has 4\.29 GB/);
    }
  });

  it("keeps the finished rows and marks the others when it is interrupted or out of time", async () => {
    const folder = mkdtempSync(join(tmpdir(), "flashmla-compare-"));
    const html = join(folder, "compare.html");
    const long = ["bench", "compare", "--contexts", "512,2048,8192", "--batches", "1,4,16"];
    const { code, stdout } = await runCli([...long, "--html", html, "--json"], { interruptAfterMs: 4000 });
    expect(code).toBe(130);
    const statuses = (JSON.parse(stdout) as { rows: { outcome: { status: string } }[] }).rows.map(
      ({ outcome }) => outcome.status,
    );
    expect(statuses).toHaveLength(2 * 9 * 5);
    expect(new Set(statuses)).toEqual(new Set(["measured", "interrupted"]));
    expect(statuses).toEqual([...statuses].sort((a, b) => b.localeCompare(a)));
    expect(readFileSync(html, "utf8")).toContain("not measured, interrupted");
    rmSync(folder, { recursive: true });
    const late = await runCli([...small, "--minutes", "0.01", "--contexts", "8192", "--preset", "small"]);
    expect(late.code).toBe(0);
    expect(late.stdout).toMatch(/the run's 0\.6 seconds were over before it/);
  });

  it.each([
    [["--preset", "9b"], /Allowed choices are tiny, small, 7b/],
    [["--contexts", "0"], /Expected an integer from 1/],
    [["--forms", "paged"], /Expected some of standard, flash/],
    [["--head-width", "24"], /multiple of 16/],
    [["--minutes", "-1"], /Expected a number from/],
    [["--heads", "0"], /Expected an integer from 1/],
    [["--batches", "1,x"], /Expected an integer from 1/],
    [["--device", "tpu"], /Expected one of cuda, webgpu, cpu, or cuda:1/],
  ])("refuses %j", async (flags, message) => {
    const { code, stderr } = await runCli(["bench", "compare", ...flags]);
    expect(code).toBe(1);
    expect(stderr).toMatch(message);
  });
});
