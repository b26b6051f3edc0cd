import type { BenchCase } from "../case.ts";
import { attentionCase } from "./attention.ts";
import { decodeCase } from "./decode.ts";
import { epilogueCase } from "./epilogue.ts";
import { gatedMlpCase, linearCase } from "./matrices.ts";
import { prefillCase } from "./prefill.ts";
import { prologueCase } from "./prologue.ts";
import { deepseekLayer } from "./widths.ts";

const wide = { heads: 16, latentWidth: 512, ropeWidth: 64 } as const;
const narrow = { heads: 9, latentWidth: 256, ropeWidth: 32 } as const;
const full = { heads: 16, kvHeads: 16, headWidth: 128, length: 4096, dtype: "bf16" } as const;
const mlp = { hidden: 1024, intermediate: 2816, dtype: "bf16" } as const;

/** The cases of `flashmla bench kernel`: the shapes of DeepSeek-V2-Lite's attention and of a 330M model around it. */
export const kernelCases: readonly BenchCase[] = [
  decodeCase({ ...wide, length: 512, dtype: "bf16" }),
  decodeCase({ ...wide, length: 4096, dtype: "bf16" }),
  decodeCase({ ...wide, length: 8192, dtype: "bf16" }),
  decodeCase({ ...wide, length: 4096, dtype: "f32" }),
  decodeCase({ ...wide, length: 4096, dtype: "f16" }),
  decodeCase({ ...wide, length: 4096, dtype: "fp8" }),
  decodeCase({ ...narrow, length: 4096, dtype: "bf16" }),
  attentionCase("standard-attention", full),
  attentionCase("attention-decode", full),
  attentionCase("attention-decode", { ...full, kvHeads: 4 }),
  attentionCase("attention-decode", { ...full, kvHeads: 1 }),
  prologueCase({ ...deepseekLayer, rows: 1 }),
  epilogueCase({ ...deepseekLayer, length: 512 }),
  epilogueCase({ ...deepseekLayer, length: 4096 }),
  prefillCase({ ...deepseekLayer, rows: 512, length: 512, cacheDtype: "bf16" }),
  prefillCase({ ...deepseekLayer, rows: 256, length: 4096, cacheDtype: "bf16" }),
  linearCase({ rows: 1, inputs: 1024, outputs: 3072, dtype: "bf16" }),
  linearCase({ rows: 1, inputs: 4096, outputs: 4096, dtype: "bf16" }),
  linearCase({ rows: 256, inputs: 1024, outputs: 3072, dtype: "bf16" }),
  gatedMlpCase({ ...mlp, rows: 1 }),
  gatedMlpCase({ ...mlp, rows: 256 }),
];
