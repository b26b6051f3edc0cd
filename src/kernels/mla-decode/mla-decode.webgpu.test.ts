import { expect, it } from "vitest";
import { compileErrors, matrixEnables, nullWebGpuDevice } from "../../../tests/fixtures/null-webgpu.ts";
import { assemble } from "../../device/webgpu/wgsl.ts";
import { latentDtypes } from "../common/latent-cache.ts";
import matrixCode from "./mla-decode.subgroup-matrix.wgsl.ts";

const scalars = ["sQ", "heads", "splits", "leastSplit", "tableWidth", "pages", "chunks"];

const device = await nullWebGpuDevice();

function codeOf(LATENT: number, LATENT_DTYPE: number, MODE: number, TERMS: number, TILE: number): string {
  const ROPE = LATENT === 512 ? 64 : 32;
  const steps = Math.ceil((LATENT + ROPE) / 16 / (8 / (TILE / 16)));
  const UNEVEN = ((LATENT + ROPE) * TILE) % 2048 !== 0;
  const shape = {
    TERMS,
    TILE,
    SUBGROUPS: 8,
    OUTPUTS: LATENT / 128,
    STEPS_EACH: steps,
    UNEVEN,
    FETCHES: (LATENT * TILE) / 2048,
    QUERY_LOADS: Math.ceil((LATENT + ROPE) / 128),
  };
  const cache = { LATENT, ROPE, LATENT_DTYPE, PAGE_SIZE: 64, ROWS: 16, MODE };
  return assemble(matrixCode, {
    constants: { ...cache, ...shape, COUNTED: true, IN_PLACE: false },
    enables: matrixEnables,
    scalars: [...scalars.map((label) => [label, "i32"] as const), ["softmaxScale", "f32"]],
    scalarBinding: 7,
  });
}

it.runIf(device !== null)("subgroup-matrix: every form of the cache and mask compiles", async () => {
  for (const LATENT of [128, 256, 512]) {
    for (const dtype of [...latentDtypes.keys()].slice(1)) {
      for (const mode of [0, 1, 2]) {
        expect(await compileErrors(device!, codeOf(LATENT, dtype, mode, 2, 32))).toEqual([]);
        expect(await compileErrors(device!, codeOf(LATENT, dtype, mode, 1, 16))).toEqual([]);
      }
    }
  }
});
