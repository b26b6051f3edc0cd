// Compiles every src/**/*.cu into cubin/, where nvcc is: *.sm90.cu for Hopper alone, the others for Ampere and newer (machine
// code for some, PTX for the driver to compile for the rest). Spilled registers in a tuned kernel fail the build.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";

/** The Hopper kernels, none of which spills: a spill in one of them is an error. */
const tuned = /FewRows_|ManyRows_|Tensor|mlaLayer_/;

const targets = {
  portable: [
    "-fatbin",
    "-gencode=arch=compute_80,code=sm_80",
    "-gencode=arch=compute_90,code=sm_90",
    "-gencode=arch=compute_80,code=compute_80",
  ],
  hopper: ["-cubin", "-gencode=arch=compute_90a,code=sm_90a"],
};

/** The path under cubin/ that a source is compiled to. */
export function cubinOf(source) {
  const stem = basename(source, ".cu");
  return `cubin/${stem}${stem.endsWith(".sm90") ? ".cubin" : ".fatbin"}`;
}

/** The version of nvcc, or null where there is none. */
export function findNvcc() {
  try {
    const text = execFileSync("nvcc", ["--version"], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
    return text.match(/release ([\d.]+)/)?.[1] ?? "unknown";
  } catch {
    return null;
  }
}

/** Functions with their bytes of spilled registers, from what `-Xptxas -v` prints. */
export function spillsOf(report) {
  const spills = [];
  let name = "";
  for (const line of report.split("\n")) {
    name = line.match(/Compiling entry function '(\w+)'/)?.[1] ?? name;
    const bytes = Number(line.match(/(\d+) bytes spill stores/)?.[1] ?? 0);
    if (bytes > 0) spills.push({ name, bytes });
  }
  return spills;
}

/** When `file` or a header that it includes was last written. */
function lastWritten(file) {
  const includes = [...readFileSync(file, "utf8").matchAll(/^#include "([^"]+)"/gm)];
  const times = includes.map(([, name]) => lastWritten(join(dirname(file), name)));
  return Math.max(statSync(file).mtimeMs, ...times);
}

/** Whether the output of `source` is younger than everything it is made of. */
function isUpToDate(root, source) {
  const output = join(root, cubinOf(source));
  return existsSync(output) && statSync(output).mtimeMs > lastWritten(join(root, source));
}

/**
 * Compiles those of `sources` that changed; throws with nvcc's words when one fails, and for spills of tuned kernels. An output appears
 * once its report is found good, so a bad one is compiled again, and complained of again, by the next build.
 */
export function buildCuda(root, sources, say) {
  mkdirSync(join(root, "cubin"), { recursive: true });
  for (const source of sources) {
    if (isUpToDate(root, source)) continue;
    const target = source.endsWith(".sm90.cu") ? targets.hopper : targets.portable;
    const output = join(root, cubinOf(source));
    const fresh = `${output}.new`;
    const flags = ["-std=c++17", "-O3", "-Xptxas", "-v", ...target, "-o", fresh];
    // ptxas reports on standard error, which execFileSync only hands over when both go to one place.
    const command = `exec nvcc "$@" 2>&1`;
    const report = execFileSync("sh", ["-c", command, "nvcc", ...flags, join(root, source)], {
      encoding: "utf8",
    });
    for (const { name, bytes } of spillsOf(report)) {
      if (tuned.test(name)) throw new Error(`${source}: ${name} spills ${bytes} bytes of registers`);
      say(`cuda: ${name} spills ${bytes} bytes of registers`);
    }
    if (["C7510", "C7513", "C7520"].some((code) => report.includes(code))) {
      throw new Error(`${source}: the tensor core's instructions are serialised\n${report}`);
    }
    renameSync(fresh, output);
  }
}
