import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildCuda, cubinOf, findNvcc, spillsOf } from "../../scripts/build-cuda.mjs";

/** A kernel that wants 128 registers of a thread that may have 64. */
const spilling = (name: string) => `
extern "C" __global__ void __launch_bounds__(1024) ${name}(float* out, const float* in) {
  float value[128];
#pragma unroll
  for (int i = 0; i < 128; i++) value[i] = in[i * blockDim.x + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 128; i++) out[i * blockDim.x + threadIdx.x] = value[i] * value[127 - i];
}
`;

describe("building the CUDA kernels", () => {
  let root: string;
  beforeAll(() => {
    root = mkdtempSync(join(tmpdir(), "flashmla-cuda-"));
    mkdirSync(join(root, "src"));
  });
  afterAll(() => rmSync(root, { recursive: true, force: true }));

  it("reads spills from what ptxas says", () => {
    const report = `ptxas info    : Compiling entry function 'one' for 'sm_90a'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Compiling entry function 'two' for 'sm_90a'
    24 bytes stack frame, 24 bytes spill stores, 28 bytes spill loads`;
    expect(spillsOf(report)).toEqual([{ name: "two", bytes: 24 }]);
  });

  it.skipIf(findNvcc() === null)("a spill in a tuned kernel fails every build, elsewhere it is told", () => {
    const said: string[] = [];
    const build = (name: string) => {
      const source = `src/${name}.cu`;
      writeFileSync(join(root, source), spilling(name));
      return () => buildCuda(root, [source], (line) => said.push(line));
    };
    const bad = build("mlaDecodeFewRows_test");
    expect(bad).toThrow(/mlaDecodeFewRows_test spills \d+ bytes of registers/);
    expect(bad).toThrow(/spills/);
    expect(existsSync(join(root, cubinOf("src/mlaDecodeFewRows_test.cu")))).toBe(false);
    build("plain")();
    expect(said.join()).toMatch(/cuda: plain spills \d+ bytes/);
    expect(existsSync(join(root, cubinOf("src/plain.cu")))).toBe(true);
  });

  it("says what it skips where there is no nvcc", () => {
    const script = join(import.meta.dirname, "..", "..", "scripts", "build.mjs");
    const env = { ...process.env, PATH: root };
    const out = execFileSync(process.execPath, [script, "--only=cuda"], { encoding: "utf8", env });
    expect(out).toMatch(/cuda: skipped, there is no nvcc on the PATH; .* built without CUDA kernels/);
  });
});
