import { listFiles, modelInfo } from "@huggingface/hub";
import { UserError } from "../../base/errors.ts";
import type { RemoteFile } from "./blob.ts";
import { isCommit } from "./cache.ts";
import type { HubClient } from "./client.ts";
import type { ModelReference } from "./reference.ts";

/** What the hub has of a model at one commit. */
export interface Listing {
  readonly commit: string;
  /** The files of its top folder. */
  readonly files: readonly RemoteFile[];
}

/** Asks the hub which commit `model` is at, and which files that holds. Rejects with the client's own errors. */
export async function fetchListing(model: ModelReference, client: HubClient): Promise<Listing> {
  const { name, revision } = model;
  const request = { hubUrl: client.endpoint, fetch: client.request };
  const { sha: commit } = await modelInfo({ ...request, name, revision, additionalFields: ["sha"] });
  const strange = new UserError(`${client.endpoint} answered for ${name} as no hub does; check HF_ENDPOINT`);
  if (!isCommit(commit)) throw strange;
  const files: RemoteFile[] = [];
  for await (const entry of listFiles({ ...request, repo: name, revision: commit })) {
    if (entry.type !== "file") continue;
    const hash = entry.lfs?.oid ?? entry.oid ?? "";
    const size = entry.lfs?.size ?? entry.size;
    if (typeof entry.path !== "string" || !/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(hash)) throw strange;
    if (!Number.isSafeInteger(size) || size < 0) throw strange;
    files.push({ path: entry.path, size, hash });
  }
  return { commit, files };
}
