import type { KernelCase } from "../common/cases/kernel-case.ts";
import { keyValueCases } from "../common/cases/key-value-cases.ts";
import { standardAttention, standardAttentionWorkspaceBytes } from "./standard-attention.ts";

/** Cases of standard-attention: those of attention-decode. */
export function standardAttentionCases(): KernelCase[] {
  return keyValueCases({
    kernel: "standard-attention",
    enqueue: standardAttention,
    workspaceBytes: standardAttentionWorkspaceBytes,
  });
}
