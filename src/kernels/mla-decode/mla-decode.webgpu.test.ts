import { expect, it } from "vitest";
import { assemble } from "../../device/webgpu/wgsl.ts";
import { latentDtypes } from "../common/latent-cache.ts";
import matrixCode from "./mla-decode.subgroup-matrix.wgsl.ts";

const enables = ["f16", "subgroups", "chromium_experimental_subgroup_matrix"];
const scalars = ["sQ", "heads", "splits", "leastSplit", "tableWidth", "pages", "chunks"];

/** Kept for good: Dawn must outlive its devices. */
const kept: unknown[] = [];

/** Dawn's null backend compiles and runs nothing; it has the features that only some GPUs have. */
async function nullDevice(): Promise<GPUDevice | null> {
  const name = "webgpu";
  const dawn = (await import(/* @vite-ignore */ name).catch(() => null)) as {
    create(options: string[]): GPU;
  } | null;
  const gpu = dawn?.create(["backend=null", "enable-dawn-features=allow_unsafe_apis"]);
  kept.push(gpu);
  const adapter = (await gpu?.requestAdapter()) ?? null;
  if (adapter === null) return null;
  const requiredFeatures = ["shader-f16", "subgroups", "chromium-experimental-subgroup-matrix"];
  return adapter.requestDevice({ requiredFeatures: requiredFeatures as GPUFeatureName[] });
}

const device = await nullDevice();

it.runIf(device !== null)("subgroup-matrix: every form of the cache and mask compiles", async () => {
  for (const LATENT of [128, 256, 512]) {
    for (const LATENT_DTYPE of latentDtypes.keys()) {
      for (const MODE of [0, 1, 2]) {
        const cache = { LATENT, ROPE: LATENT === 512 ? 64 : 32, LATENT_DTYPE, PAGE_SIZE: 64 };
        const code = assemble(matrixCode, {
          constants: { ...cache, ROWS: 16, MODE, COUNTED: true, IN_PLACE: false },
          enables,
          scalars: [...scalars.map((label) => [label, "i32"] as const), ["softmaxScale", "f32"]],
          scalarBinding: 7,
        });
        const { messages } = await device!.createShaderModule({ code }).getCompilationInfo();
        expect(messages.filter(({ type }) => type === "error").map(({ message }) => message)).toEqual([]);
      }
    }
  }
});
