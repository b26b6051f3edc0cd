// Whether Node should try WebGPU unasked. Dawn is native code that may bring the process down as it meets a driver, and loading it
// takes a tenth of a second: so the machine is looked at first, and then another process tries.
import { UserError } from "../../base/errors.ts";
import { adapterName, gpuObstacle, isSoftware } from "./adapter.ts";

/** What the probe asks of the machine; tests put another in its place. */
export interface ProbeHost {
  /** Why there can be no GPU, or null. */
  obstacle(): string | null;
  /** Runs `script` as a module in another process of this Node; null where this program is no plain Node. */
  run(script: string): ProbeEnd | null;
}

/** How the other process ended. */
export interface ProbeEnd {
  readonly status: number | null;
  readonly signal: string | null;
  readonly output: string;
}

const PROBE_MS = 10_000;

/** Prints one JSON line about the adapter that Dawn finds. */
const script = `
const { create } = await import("webgpu");
const gpu = create([]);
const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
const { vendor, architecture, device, description, isFallbackAdapter } = adapter?.info ?? {};
console.log(JSON.stringify(adapter && { info: { vendor, architecture, device, description, isFallbackAdapter } }));
process.exit(0);
`;

/** This machine. */
export function nodeHost(): ProbeHost {
  const { spawnSync } = process.getBuiltinModule("node:child_process");
  const { basename } = process.getBuiltinModule("node:path");
  const { fileURLToPath } = process.getBuiltinModule("node:url");
  return {
    obstacle: gpuObstacle,
    run(text) {
      // A program that has Node inside would start itself once more.
      if (!/^node(js)?(\.exe)?$/i.test(basename(process.execPath))) return null;
      const { status, signal, stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", text], {
        ...{ cwd: fileURLToPath(new URL(".", import.meta.url)), timeout: PROBE_MS, encoding: "utf8" },
        ...{ stdio: ["ignore", "pipe", "ignore"], windowsHide: true },
      });
      return { status, signal, output: stdout ?? "" };
    },
  };
}

/** What stands against trying WebGPU unasked in Node, as a sentence, or null: no GPU, no Dawn, or one that fails. */
export function whyNotWebGpu(host: ProbeHost = nodeHost()): string | null {
  const obstacle = host.obstacle();
  if (obstacle !== null) return obstacle;
  const ended = host.run(script);
  if (ended === null) return null;
  const { status, signal, output } = ended;
  if (signal !== null) return `Dawn, looking for an adapter, was ended by ${signal}`;
  if (status !== 0) return "the optional package webgpu (Dawn) does not load";
  const adapter = adapterOf(output);
  if (adapter === null) return "WebGPU finds no adapter here";
  if (!isSoftware(adapter)) return null;
  return `its only adapter computes on the processor (${adapterName(adapter)}); --device webgpu takes it all the same`;
}

/** The adapter of the other process's last line; a driver may have printed lines before. */
function adapterOf(output: string): Pick<GPUAdapter, "info"> | null {
  try {
    return JSON.parse(output.trim().split("\n").at(-1) ?? "");
  } catch (cause) {
    throw new UserError("Another process that looked for WebGPU gave no answer.", { cause });
  }
}
