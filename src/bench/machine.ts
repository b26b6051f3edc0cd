import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { availableParallelism, cpus, release, totalmem } from "node:os";

/** The machine a measurement was made on. */
export interface Machine {
  /** Folder name: the same for the same kind of machine. */
  readonly slug: string;
  readonly cpu: string;
  /** Processors this process may use. */
  readonly processors: number;
  readonly memoryBytes: number;
  readonly system: string;
}

/** Family and model as /proc/cpuinfo names them: virtual machines shorten the processor's name; "" elsewhere. */
function cpuStepping(): string {
  try {
    const info = readFileSync("/proc/cpuinfo", "utf8");
    const family = /^cpu family\s*:\s*(\d+)/m.exec(info)?.[1];
    const model = /^model\s*:\s*(\d+)/m.exec(info)?.[1];
    return family === undefined || model === undefined ? "" : `family ${family} model ${model}`;
  } catch {
    return "";
  }
}

/** A folder name from a processor's name and count: marks, clock and noise words go. */
export function machineSlug(cpu: string, processors: number): string {
  const words = cpu
    .toLowerCase()
    .replace(/\((r|tm)\)|@.*?ghz|\b(cpu|processor|\d+-core)\b/g, " ")
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-+|-+$/g, "");
  return `${words || "unknown"}-x${processors}`;
}

/** This machine. */
export function describeMachine(): Machine {
  const name = cpus()[0]?.model.trim() || "unknown";
  const cpu = `${name} ${cpuStepping()}`.trim();
  const processors = availableParallelism();
  return {
    slug: machineSlug(cpu, processors),
    cpu,
    processors,
    memoryBytes: totalmem(),
    system: `${process.platform} ${release()} ${process.arch}`,
  };
}

function git(...parameters: string[]): string | null {
  try {
    const cwd = import.meta.dirname;
    return execFileSync("git", parameters, { cwd, encoding: "utf8", stdio: "pipe" }).trim();
  } catch {
    return null;
  }
}

/** The commit this code is at, `+` where src/ differs from it; null outside a repository. */
export function describeCommit(): string | null {
  const commit = git("rev-parse", "--short=12", "HEAD");
  if (commit === null) return null;
  return git("status", "--porcelain", "--", ":/src") === "" ? commit : `${commit}+`;
}
