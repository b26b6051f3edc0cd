import type { BenchCase } from "../case.ts";
import { attentionCase } from "./attention.ts";
import { gatedMlpCase, linearCase } from "./matrices.ts";
import { prefillCase } from "./prefill.ts";
import { deepseekLayer } from "./widths.ts";

const heads = { heads: 32, headWidth: 128, dtype: "bf16" } as const;
const matrix = { inputs: 4096, outputs: 4096, dtype: "bf16" } as const;
const mlp = { hidden: 4096, intermediate: 11008, dtype: "bf16" } as const;

const prompt = {
  ...{ ...deepseekLayer, heads: 32, rows: 4096, length: 4096 },
  ...({ cacheDtype: "bf16", queryDtype: "bf16" } as const),
};

/** The cases of `flashmla bench kernel --device cuda` beside mla-decode: the shapes of a 7B model. */
export const gpuKernelCases: readonly BenchCase[] = [
  linearCase({ ...matrix, rows: 1 }),
  linearCase({ ...matrix, rows: 8 }),
  linearCase({ ...matrix, rows: 1, outputs: 32_000 }),
  linearCase({ ...matrix, rows: 4096, isRounded: true }),
  gatedMlpCase({ ...mlp, rows: 1 }),
  gatedMlpCase({ ...mlp, rows: 8 }),
  prefillCase(prompt),
  attentionCase("attention-decode", { ...heads, kvHeads: 32, length: 4096 }),
  attentionCase("attention-decode", { ...heads, kvHeads: 32, length: 16_384 }),
  attentionCase("attention-decode", { ...heads, kvHeads: 8, length: 32_768 }),
  attentionCase("standard-attention", { ...heads, kvHeads: 32, length: 4096 }),
];
