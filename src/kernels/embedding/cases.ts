import type { WeightDType } from "../../base/dtypes.ts";
import { createRandom } from "../../base/random.ts";
import { compareRows } from "../common/cases/compare.ts";
import type { KernelCase, PreparedCase } from "../common/cases/kernel-case.ts";
import { randomMatrix } from "../common/cases/stored.ts";
import { embedding } from "./embedding.ts";
import { embeddingReference } from "./reference.ts";

type Row = readonly [rows: number, vocab: number, hidden: number, dtype: WeightDType, scale: number];

const rows: readonly Row[] = [
  [1, 19, 8, "bf16", 1],
  [5, 19, 160, "f16", 12],
  [64, 301, 1024, "bf16", 0.5],
  [3, 19, 24, "f32", 1],
  [7, 33, 5120, "bf16", 1],
];

function prepare([rowCount, vocab, hidden, dtype, scale]: Row): PreparedCase {
  const random = createRandom(rowCount + hidden);
  const table = randomMatrix(random, { dtype, rows: vocab, columns: hidden }, 1);
  const ids = Int32Array.from({ length: rowCount }, () => random.integer(vocab));
  if (rowCount > 2) ids.set([-1, vocab], 1);
  const expected = embeddingReference(ids, table.values, hidden, scale).map(Math.fround);
  return {
    async check(memory) {
      const maxRows = rowCount + 2;
      const args = {
        ...{ scale, maxRows },
        ids: memory.upload("ids", ids, maxRows * 4),
        table: memory.uploadMatrix("table", table),
        out: memory.reserve("out", maxRows * hidden * 4),
        rowCount: memory.uploadCount("rowCount", rowCount),
      };
      await memory.run((launch) => embedding(launch, args));
      const actual = await memory.readFloats(args.out);
      const tolerance = { absolute: 0, relative: 0 };
      return [compareRows({ output: "out", actual, width: hidden, liveRows: rowCount, expected, tolerance })];
    },
  };
}

/** Cases of embedding: every weight type, ids outside the table; exact. */
export function embeddingCases(): KernelCase[] {
  return rows.map((row) => ({
    ...{ kernel: "embedding", group: "all weight types", isQuick: true },
    shape: `n=${row[0]} vocab=${row[1]} hidden=${row[2]} ${row[3]} scale=${row[4]}`,
    prepare: () => prepare(row),
  }));
}
