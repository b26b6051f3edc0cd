import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";

/** Two of the cases are in the repository; kernel/ in the folder FLASHMLA_GOLDEN has all four, unpacked. */
const packed = join(import.meta.dirname, "kernel");
const folder = process.env.FLASHMLA_GOLDEN ? join(process.env.FLASHMLA_GOLDEN, "kernel") : "";
const names = ["dense_h20_q4_zero", "fp8_sparse", "dense_h16", "dense_h128_mtp2"];

const unpackedPath = (name: string) => join(folder, `${name}.safetensors`);
const packedPath = (name: string) => join(packed, `${name}.safetensors.gz`);
const isUnpacked = (name: string) => folder !== "" && existsSync(unpackedPath(name));

/** The cases at hand, and those only FLASHMLA_GOLDEN would bring. */
export const kernelGoldens = names.filter((name) => existsSync(packedPath(name)) || isUnpacked(name));
export const missingKernelGoldens = names.filter((name) => !kernelGoldens.includes(name));

/** The file of one of {@link kernelGoldens}; `close` removes what was unpacked. */
export function openKernelGolden(name: string): { path: string; close: () => void } {
  if (isUnpacked(name)) return { path: unpackedPath(name), close: () => {} };
  const target = mkdtempSync(join(tmpdir(), "flashmla-kernel-"));
  const path = join(target, `${name}.safetensors`);
  writeFileSync(path, gunzipSync(readFileSync(packedPath(name))));
  return { path, close: () => rmSync(target, { recursive: true }) };
}

/** The tolerances of mla-decode's public tests: out, then lse; judged here apart from the code under test. */
export function worstViolation(
  output: "out" | "lse",
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
): number {
  const [absolute, relative] = output === "out" ? [8e-4, 2.01 / 128] : [1e-6, 8.01 / 65536];
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    const [got, truth] = [actual[i]!, expected[i]!];
    if (Object.is(got, truth)) continue;
    const error = Math.abs(got - truth);
    const share = Math.min(error / absolute, error / (relative * Math.abs(truth)));
    if (!(share <= worst)) worst = Number.isNaN(share) ? Number.POSITIVE_INFINITY : share;
  }
  return worst;
}
