import {
  type MlaDecodeSizes,
  mlaDecodeLayout,
  mlaDecodeWorkspaceBytes,
} from "../../kernels/common/mla-partials.ts";
import { mlaEpilogue, mlaEpilogueCost } from "../../kernels/mla-epilogue/mla-epilogue.ts";
import { mlaEpilogueReference } from "../../kernels/mla-epilogue/reference.ts";
import { type BenchCase, normals, worstErrorOf } from "../case.ts";
import { describeLayer, type LayerShape, uploadKvB } from "./widths.ts";

/** The merge of the splits of one token and its value projection; the last head is checked. */
export function epilogueCase(shape: LayerShape & { readonly length: number }): BenchCase {
  const { heads, latentWidth, nopeWidth, valueWidth, length } = shape;
  const sizes: MlaDecodeSizes = { ...shape, batch: 1, sQ: 1, maxLen: length };
  return {
    name: `mla-epilogue b=1 ${describeLayer(shape)} s=${length} ${shape.weightDtype}`,
    cost: mlaEpilogueCost({ ...sizes, valueWidth, kvB: { dtype: shape.weightDtype } }, 1),
    tolerance: 2e-5,
    prepare(memory, copies) {
      const { splits, statsOffset } = mlaDecodeLayout(sizes);
      const partials = normals(mlaDecodeWorkspaceBytes(sizes) / 4, 8);
      for (let at = statsOffset + 1; at < partials.length; at += 2)
        partials[at] = 1 + Math.abs(partials[at]!);
      const buffers = {
        partials: memory.upload(partials, "partials"),
        out: memory.allocate(heads * valueWidth * 4, "out"),
      };
      const { weights, values } = uploadKvB(memory, shape, copies);
      return {
        enqueue: (launch, copy) =>
          mlaEpilogue(launch, { ...shape, ...sizes, ...buffers, kvB: weights[copy]! }),
        async worstError() {
          const ids = Array.from({ length: splits }, (_, split) => split * heads + heads - 1);
          const splitRow = {
            outs: ids.map((id) => partials.subarray(id * latentWidth, (id + 1) * latentWidth)),
            maxima: ids.map((id) => partials[statsOffset + 2 * id]!),
            sums: ids.map((id) => partials[statsOffset + 2 * id + 1]!),
          };
          const first = (heads - 1) * (nopeWidth + valueWidth) + nopeWidth;
          const projection = Array.from({ length: valueWidth }, (_, i) =>
            values.subarray((first + i) * latentWidth, (first + i + 1) * latentWidth),
          );
          const actual = await memory.readFloats(buffers.out, heads * valueWidth);
          const expected = mlaEpilogueReference(splitRow, projection);
          return worstErrorOf(actual.subarray((heads - 1) * valueWidth), expected);
        },
      };
    },
  };
}
