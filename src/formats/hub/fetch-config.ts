import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { UserError } from "../../base/errors.ts";
import { ModelCache } from "./cache.ts";
import { createHubClient } from "./client.ts";
import { explainHubFailure } from "./failures.ts";
import { fetchListing } from "./listing.ts";
import type { ModelReference } from "./reference.ts";
import type { HubSettings } from "./settings.ts";

/**
 * The text of a hub model's config.json alone: from the cache where it holds the model whole, else from the hub, without its
 * weights. Rejects with a UserError when the model cannot be reached or has none.
 */
export async function fetchConfigText(
  model: ModelReference,
  settings: HubSettings,
  signal: AbortSignal | undefined,
): Promise<string> {
  const whole = await new ModelCache(settings.cacheFolder, model.name).findWhole(model);
  if (whole !== undefined) return readFile(join(whole, "config.json"), "utf8");
  if (settings.offline) {
    throw new UserError(
      `the cache does not hold ${model.name} and HF_HUB_OFFLINE is set; unset it to read its config.json`,
    );
  }
  const client = createHubClient(settings, signal);
  try {
    const { commit, files } = await fetchListing(model, client);
    if (!files.some(({ path }) => path === "config.json")) {
      throw new UserError(`${model.name} has no config.json; choose a model in the Hugging Face layout`);
    }
    const limit = AbortSignal.timeout(settings.requestSeconds * 1000);
    const file = { name: model.name, commit, path: "config.json" };
    const stream = await client.stream(file, 0, signal ? AbortSignal.any([signal, limit]) : limit);
    return await new Response(stream).text();
  } catch (error) {
    signal?.throwIfAborted();
    throw error instanceof UserError ? error : explainHubFailure(error, model, settings);
  }
}
