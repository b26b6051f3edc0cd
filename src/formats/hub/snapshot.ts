import { mkdir, readFile, statfs } from "node:fs/promises";
import { join } from "node:path";
import { errorCode, UserError } from "../../base/errors.ts";
import { weightsFile, weightsIndexFile } from "../checkpoint.ts";
import { parseShardIndex } from "../shard-index.ts";
import type { RemoteFile } from "./blob.ts";
import { downloadBlob } from "./blob.ts";
import { fileSize, isCommit, ModelCache } from "./cache.ts";
import type { HubClient } from "./client.ts";
import { createHubClient } from "./client.ts";
import { diskError, explainBrokenDownload, explainHubFailure, isOutage, statusOf } from "./failures.ts";
import type { Listing } from "./listing.ts";
import { fetchListing } from "./listing.ts";
import type { ResolveModelOptions } from "./options.ts";
import type { ModelReference } from "./reference.ts";
import type { HubSettings } from "./settings.ts";

const smallFiles =
  /^(config|generation_config|tokenizer[^/]*|special_tokens_map|added_tokens)\.json$|^chat_template[^/]*$/;

/** One fetch of a model: what it is, where it comes from, where it goes. */
interface Fetch extends ResolveModelOptions {
  readonly model: ModelReference;
  readonly settings: HubSettings;
  readonly client: HubClient;
  readonly cache: ModelCache;
  readonly listing: Listing;
}

async function fetchFile(fetch: Fetch, file: RemoteFile): Promise<void> {
  const { model, settings, client, cache, signal } = fetch;
  const { commit } = fetch.listing;
  const target = cache.blob(file.hash);
  if ((await fileSize(join(cache.snapshot(commit), file.path))) === file.size) return;
  if ((await fileSize(target)) !== file.size) {
    await downloadBlob({
      file,
      target,
      fetchFrom: (start, stalled) =>
        client.stream({ name: model.name, commit, path: file.path }, start, stalled),
      onBytes: (loaded) => fetch.onProgress?.(file.path, loaded, file.size),
      explain: (error, loaded) =>
        statusOf(error) === undefined
          ? explainBrokenDownload(error, file.path, loaded, file.size)
          : explainHubFailure(error, model, settings),
      stallSeconds: settings.stallSeconds,
      signal,
    });
  }
  await cache.link(commit, file.path, file.hash);
}

/** The files of the weights: the single one where there is one, else those that the index names, fetched first. */
async function fetchWeightNames(fetch: Fetch): Promise<readonly string[]> {
  const { model, cache, listing } = fetch;
  if (listing.files.some(({ path }) => path === weightsFile)) return [weightsFile];
  const index = listing.files.find(({ path }) => path === weightsIndexFile);
  if (index === undefined) {
    throw new UserError(
      `${model.name} has no safetensors weights (neither ${weightsFile} nor ${weightsIndexFile}); choose a model that has`,
    );
  }
  await fetchFile(fetch, index);
  const path = join(cache.snapshot(listing.commit), weightsIndexFile);
  return [...new Set(parseShardIndex(path, await readFile(path, "utf8")).values())];
}

/** Throws before anything large comes down when the disk has no room for it. */
async function checkRoom({ cache, settings }: Fetch, files: readonly RemoteFile[]): Promise<void> {
  let needed = 0;
  for (const { hash, size } of files) {
    const present =
      (await fileSize(cache.blob(hash))) ?? (await fileSize(`${cache.blob(hash)}.incomplete`)) ?? 0;
    needed += Math.max(0, size - present);
  }
  await mkdir(cache.folder, { recursive: true });
  const { bavail, bsize } = await statfs(cache.folder);
  if (needed > bavail * bsize) {
    const gigabytes = (bytes: number) => (bytes / 1e9).toFixed(1);
    throw new UserError(
      `${gigabytes(needed)} GB are to be downloaded but the disk of ${settings.cacheFolder} has ${gigabytes(bavail * bsize)} GB ` +
        "left; free some space, or set HF_HUB_CACHE to a folder on another disk",
    );
  }
}

async function fetchAll(fetch: Fetch): Promise<string> {
  const { model, cache, listing } = fetch;
  const byPath = new Map(listing.files.map((file) => [file.path, file]));
  if (!byPath.has("config.json")) {
    throw new UserError(`${model.name} has no config.json; choose a model in the Hugging Face layout`);
  }
  for (const file of listing.files.filter(({ path }) => smallFiles.test(path))) await fetchFile(fetch, file);
  const weights = (await fetchWeightNames(fetch)).map((path) => {
    const file = byPath.get(path);
    if (file === undefined)
      throw new UserError(`${model.name} lacks ${path}, which its ${weightsIndexFile} names`);
    return file;
  });
  await checkRoom(fetch, weights);
  for (const file of weights) await fetchFile(fetch, file);
  if (!isCommit(model.revision)) await cache.writeRef(model.revision, listing.commit);
  return cache.snapshot(listing.commit);
}

/**
 * The folder in the cache with the files of `model` that are needed to run it, fetched where they are missing. The hub
 * is asked whether the revision has moved on; when it cannot be reached, what the cache holds whole is given. Rejects
 * with a UserError as {@link downloadBlob} does, and when the hub does not have the model or refuses it.
 */
export async function fetchSnapshot(
  model: ModelReference,
  settings: HubSettings,
  options: ResolveModelOptions,
): Promise<string> {
  const cache = new ModelCache(settings.cacheFolder, model.name);
  const whole = await cache.findWhole(model);
  if (whole !== undefined && (settings.offline || isCommit(model.revision))) return whole;
  if (settings.offline) {
    throw new UserError(
      `the cache does not hold ${model.name} whole and HF_HUB_OFFLINE is set; unset it to download`,
    );
  }
  const client = createHubClient(settings, options.signal);
  let listing: Listing;
  try {
    listing = await fetchListing(model, client);
  } catch (error) {
    options.signal?.throwIfAborted();
    if (whole !== undefined && isOutage(error)) return whole;
    throw explainHubFailure(error, model, settings);
  }
  return fetchAll({ ...options, model, settings, client, cache, listing }).catch((error) => {
    throw errorCode(error) === undefined ? error : diskError(cache.folder, error);
  });
}
