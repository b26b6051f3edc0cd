import { afterAll, describe, expect, it } from "vitest";
import { ModelFolders, shipped, writeWideWeights } from "./model-folders.ts";
import { runCli } from "./run-cli.ts";

const folders = new ModelFolders();
afterAll(() => folders.remove());

describe("generate", () => {
  it("streams text from the model that ships with the package and ends with what it cost", async () => {
    const { code, stdout, stderr } = await runCli(["generate", "-n", "40", "--seed", "1"]);
    expect(code).toBe(0);
    expect(stdout.length).toBeGreaterThan(100);
    expect(stderr).toMatch(/prefill\s+\d+ tokens at \d+/);
    expect(stderr).toMatch(/first token\s+after \d+ ms/);
    expect(stderr).toMatch(/decode\s+40 tokens at \d+/);
    expect(stderr).toMatch(/576 B a token and layer\): 4\.0× smaller than every head's keys and values/);
  });

  it("gives the same text for the same seed, whatever the number of threads", async () => {
    const flags = ["generate", shipped, "-p", "JULIET:\n", "-n", "30", "--seed", "7", "--json"];
    const runs = await Promise.all(
      ["1", "2", "3"].map((threads) => runCli([...flags, "--threads", threads])),
    );
    const texts = runs.map(({ stdout }) => (JSON.parse(stdout) as { text: string }).text);
    expect(texts[0]!.length).toBeGreaterThan(10);
    expect(new Set(texts).size).toBe(1);
  });

  it("stops before a stop string and says so", async () => {
    const flags = ["generate", shipped, "-p", "ROMEO:\nI", "-n", "400", "--greedy", "--stop", "\n", "--json"];
    const report = JSON.parse((await runCli(flags)).stdout) as Record<string, unknown>;
    expect(report.finishReason).toBe("stop");
    expect(report.text).not.toContain("\n");
    expect(report).toMatchObject({ promptTokens: expect.any(Number), cache: { timesSmaller: 4 } });
  });

  it("reads the prompt from standard input", async () => {
    const { stdout } = await runCli(["generate", shipped, "--prompt-file", "-", "-n", "5"], {
      input: "KING",
    });
    expect(stdout.startsWith("KING")).toBe(true);
  });

  it("ends at Ctrl-C with exit code 130, the text so far and the summary", async () => {
    let sent = false;
    const { code, stderr } = await runCli(["generate", "-n", "900", "--ignore-eos"], {
      onOutput: (child, text) => {
        if (sent || text.length === 0) return;
        sent = true;
        child.kill("SIGINT");
      },
    });
    expect(code).toBe(130);
    expect(stderr).toMatch(/cut off/);
  });

  it("ends at Ctrl-C while weights load, with exit code 130 and one sentence", async () => {
    const large = folders.spoiled((folder) => writeWideWeights(folder, 2 ** 18));
    const { code, stdout, stderr } = await runCli(["generate", large, "-p", "a", "--device", "cpu"], {
      interruptAfterMs: 2000,
    });
    expect([code, stdout, stderr]).toEqual([130, "", "Stopped by Ctrl-C.\n"]);
  });

  it("ends quietly when the reader has seen enough", async () => {
    const { stderr } = await runCli(["generate", "-n", "200"], {
      onOutput: (child) => child.stdout?.destroy(),
    });
    expect(stderr).not.toMatch(/error|EPIPE/);
  });
});

describe("chat", () => {
  it("answers each line of standard input by the model's template", async () => {
    const input = "Who art thou?\n/clear\nAnd now?\n/exit\n";
    const { code, stdout, stderr } = await runCli(["chat", "-n", "12", "--seed", "3"], { input });
    expect(code).toBe(0);
    expect(stdout.trim().length).toBeGreaterThan(5);
    expect(stderr.match(/tokens, first after/g)).toHaveLength(2);
  });
});

describe("logits", () => {
  it("prints one array of the vocabulary's size per position", async () => {
    const { stdout } = await runCli(["logits", shipped, "--ids", "5,6,7", "--last", "2", "--cache", "f32"]);
    const report = JSON.parse(stdout) as { logits: number[][]; positions: number[] };
    expect(report.positions).toEqual([1, 2]);
    expect(report.logits.map((row) => row.length)).toEqual([1024, 1024]);
    expect(report.logits.flat().every(Number.isFinite)).toBe(true);
  });
});
