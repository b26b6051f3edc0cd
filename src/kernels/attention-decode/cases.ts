import type { KernelCase } from "../common/cases/kernel-case.ts";
import { keyValueCases } from "../common/cases/key-value-cases.ts";
import { attentionDecode, attentionDecodeWorkspaceBytes } from "./attention-decode.ts";

/** Cases of attention-decode: multi-head, grouped-query and multi-query caches, masks and windows. */
export function attentionDecodeCases(): KernelCase[] {
  return keyValueCases({
    kernel: "attention-decode",
    enqueue: attentionDecode,
    workspaceBytes: attentionDecodeWorkspaceBytes,
  });
}
