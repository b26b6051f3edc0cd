import { describe, expect, it } from "vitest";
import { runCli } from "./run-cli.ts";

const kernels = [
  ...["embedding", "rms-norm", "linear", "mla-prologue", "mla-prefill", "mla-epilogue", "gated-mlp"],
  ...["expert-routing", "expert-mlp", "sampling", "mla-decode", "attention-decode"],
  ...["attention-prologue", "standard-attention", "mla-layer"],
];

interface Report {
  readonly isPassed: boolean;
  readonly devices: string[];
  readonly failures: unknown[];
  readonly impossible: unknown[];
  readonly rows: { device: string; kernel: string; cases: number; failed: number; checkedRows: number }[];
}

describe("verify", () => {
  it("--quick --json: every kernel passes on the CPU with and without relaxed SIMD", async () => {
    const { code, stdout } = await runCli(["verify", "--quick", "--device", "cpu", "--json"]);
    expect(code).toBe(0);
    const report = JSON.parse(stdout) as Report;
    expect(report).toMatchObject({ isPassed: true, failures: [], impossible: [] });
    expect(report.devices).toHaveLength(2);
    for (const device of report.devices) {
      const own = report.rows.filter((row) => row.device === device);
      expect([...new Set(own.map(({ kernel }) => kernel))].sort()).toEqual([...kernels].sort());
      expect(
        own.every(({ cases, failed, checkedRows }) => cases > 0 && failed === 0 && checkedRows > 0),
      ).toBe(true);
    }
  });

  it("--filter: a table of that kernel alone, for one thread, and how it went", async () => {
    const flags = ["--quick", "--device", "cpu", "--threads", "1", "--filter", "mla-decode fp8"];
    const { code, stdout } = await runCli(["verify", ...flags]);
    expect(code).toBe(0);
    const lines = stdout.trim().split("\n");
    expect(lines.filter((line) => /SIMD, 1 thread$/.test(line))).toHaveLength(2);
    expect(
      lines.filter((line) => /^kernel +cases +output +count +rows checked +worst absolute/.test(line)),
    ).toHaveLength(2);
    const rows = lines.filter((line) => line.startsWith("mla-decode"));
    expect(rows).toHaveLength(4);
    for (const row of rows) expect(row).toMatch(/^mla-decode +fp8 cache +(out|lse) +\d+ .*e-\d.* pass$/);
    expect(lines.at(-1)).toMatch(/^Every kernel agrees with float64: \d+ runs on 2 devices, \d+ s\.$/);
  });

  it("Ctrl-C: what was done is told, and how many cases were not begun; exit code 130", async () => {
    const flags = ["verify", "--device", "cpu", "--filter", "mla-decode"];
    const { code, stdout } = await runCli(flags, { interruptAfterMs: 5000 });
    expect(code).toBe(130);
    expect(stdout).toMatch(/^mla-\S+ .* pass$/m);
    expect(stdout).toMatch(/Stopped by Ctrl-C: \d+ cases were not begun\.\nWhat was run agrees with float64/);
  });

  it.each([
    [["--filter", "no-such-kernel"], /the kernels are embedding, rms-norm,/],
    [["--device", "abacus"], /abacus/],
    [["--threads", "0"], /from 1 to 256/],
  ])("%j: exit code 1 and what to do", async (flags, message) => {
    const { code, stdout, stderr } = await runCli(["verify", ...flags]);
    expect(code).toBe(1);
    expect(stdout).toBe("");
    expect(stderr).toMatch(message);
  });

  it("explains its columns and the public suite in its help", async () => {
    const { stdout } = await runCli(["verify", "--help"]);
    for (const word of ["rows checked", "worst relative", "public suite", "--quick", "Examples:"]) {
      expect(stdout).toContain(word);
    }
  });
});
