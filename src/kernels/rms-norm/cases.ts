import { createRandom } from "../../base/random.ts";
import { compareRows } from "../common/cases/compare.ts";
import type { KernelCase, PreparedCase } from "../common/cases/kernel-case.ts";
import { rmsNormReference } from "./reference.ts";
import { rmsNorm } from "./rms-norm.ts";

type Row = readonly [rows: number, width: number];

const rows: readonly Row[] = [
  [1, 4],
  [3, 96],
  [64, 160],
  [7, 1024],
  [2, 1536],
  [33, 2560],
  [5, 7168],
];

function prepare([rowCount, width]: Row): PreparedCase {
  const random = createRandom(rowCount * 1000 + width);
  const x = random.normals(rowCount * width);
  const weight = random.normals(width, 0.1).map((value) => 1 + value);
  const expected = rmsNormReference(x, weight, 1e-6);
  return {
    async check(memory) {
      const maxRows = rowCount + 2;
      const args = {
        ...{ maxRows, width, epsilon: 1e-6 },
        x: memory.upload("x", x, maxRows * width * 4),
        weight: memory.upload("weight", weight),
        out: memory.reserve("out", maxRows * width * 4),
        rowCount: memory.uploadCount("rowCount", rowCount),
      };
      await memory.run((launch) => rmsNorm(launch, args));
      const actual = await memory.readFloats(args.out);
      const tolerance = { absolute: 8e-6, relative: 2e-6 };
      return [compareRows({ output: "out", actual, width, liveRows: rowCount, expected, tolerance })];
    },
  };
}

/** Cases of rms-norm: widths of the six model types and odd row counts. */
export function rmsNormCases(): KernelCase[] {
  return rows.map((row) => ({
    ...{ kernel: "rms-norm", group: "f32", isQuick: true },
    shape: `n=${row[0]} width=${row[1]}`,
    prepare: () => prepare(row),
  }));
}
