import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..", "..");

/** What a run of the command line left. */
export interface CliResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** How {@link runCli} runs it. */
export interface CliOptions {
  /** Written to standard input, which is then closed. */
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Sends SIGINT, as Ctrl-C does, so many milliseconds after the start. */
  readonly interruptAfterMs?: number;
  /** Where standard output goes in place of the result. */
  readonly stdoutFile?: string;
  readonly onStart?: (child: ChildProcess) => void;
  /** Called with each piece of standard output. */
  readonly onOutput?: (child: ChildProcess, text: string) => void;
}

/** Runs the built command line with `parameters`. */
export function runCli(parameters: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  const { stdoutFile } = options;
  const stdoutTarget = stdoutFile === undefined ? "pipe" : openSync(stdoutFile, "w");
  const child = spawn(process.execPath, [join(root, "dist/cli/main.js"), ...parameters], {
    env: { ...process.env, NO_COLOR: "1", ...options.env },
    stdio: ["pipe", stdoutTarget, "pipe"],
  });
  if (stdoutTarget !== "pipe") closeSync(stdoutTarget);
  options.onStart?.(child);
  let stdout = "";
  let stderr = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
    options.onOutput?.(child, text);
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  child.stdin?.on("error", () => {});
  child.stdin?.end(options.input ?? "");
  const { interruptAfterMs } = options;
  const timer =
    interruptAfterMs === undefined ? undefined : setTimeout(() => child.kill("SIGINT"), interruptAfterMs);
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => {
      clearTimeout(timer);
      resolve({ code, stdout, stderr });
    });
  });
}
