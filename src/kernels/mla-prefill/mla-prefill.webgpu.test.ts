import { expect, it } from "vitest";
import { compileErrors, matrixEnables, nullWebGpuDevice } from "../../../tests/fixtures/null-webgpu.ts";
import { assemble } from "../../device/webgpu/wgsl.ts";
import attendCode from "./mla-prefill.attend.subgroup-matrix.wgsl.ts";
import expandCode from "./mla-prefill.expand.subgroup-matrix.wgsl.ts";

const device = await nullWebGpuDevice();

const shared = { enables: matrixEnables };

it.runIf(device !== null)("subgroup-matrix: every form of the cache compiles", async () => {
  const integers = (labels: string[]) => labels.map((label) => [label, "i32"] as const);
  for (const LATENT_DTYPE of [1, 2, 3]) {
    const cache = { LATENT: 512, ROPE: 64, LATENT_DTYPE, PAGE_SIZE: 64, IN_PLACE: false };
    for (const DTYPE of [0, 1]) {
      const code = assemble(expandCode, {
        ...shared,
        constants: { ...cache, DTYPE },
        scalars: integers(["tokens", "firstRow", "groupRows", "headRows", "rowBlocks"]),
        scalarBinding: 4,
      });
      expect(await compileErrors(device!, code)).toEqual([]);
    }
    for (const SUBGROUPS of [4, 8]) {
      const fetches = {
        NOPE_FETCHES: 16 / SUBGROUPS,
        ROPE_FETCHES: 8 / SUBGROUPS,
        VALUE_FETCHES: 16 / SUBGROUPS,
      };
      const widths = { NOPE: 128, VALUE: 128, SUBGROUPS, QUERY_STEPS: 12, OUTPUTS: 8 };
      const code = assemble(attendCode, {
        ...shared,
        constants: { ...cache, ...widths, ...fetches },
        scalars: [
          ...integers(["tokens", "firstHead", "groupHeads", "heads", "chunks"]),
          ["base2Scale", "f32"],
        ],
        scalarBinding: 6,
      });
      expect(await compileErrors(device!, code)).toEqual([]);
    }
  }
});
