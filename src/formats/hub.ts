import { checkString } from "../base/checks.ts";
import { errorCode, UserError } from "../base/errors.ts";
import { fileError } from "../files/file-source.ts";
import type { ResolveModelOptions } from "./hub/options.ts";
import { parseModelReference } from "./hub/reference.ts";

export type { DownloadProgress, ResolveModelOptions } from "./hub/options.ts";

/**
 * The folder of the model that `model` names (Node only): a folder is itself; `owner/name`, or `owner/name@revision`,
 * is a model of the hub, brought into the standard cache folder (`models--owner--name/snapshots/<commit>`) with the
 * files that are needed to run it. What the cache holds already is not fetched again, and a model that it holds
 * whole opens without a network. Rejects with a UserError when there is no such folder or model, when it may not be
 * read, when the network or the disk fails, or when what came down does not match its hash.
 */
export async function resolveModel(model: string, options: ResolveModelOptions = {}): Promise<string> {
  checkString("model", model);
  const { stat } = await import("node:fs/promises");
  const stats = await stat(model).catch((error) => {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ENOTDIR") return undefined;
    throw fileError("open", model, error);
  });
  if (stats?.isDirectory()) return model;
  if (stats !== undefined) {
    throw new UserError(`${model} is a file; give the folder that holds the model's config.json and weights`);
  }
  const reference = parseModelReference(model);
  if (reference === undefined) {
    throw new UserError(`there is no folder ${model}; give a model's folder or its owner/name on the hub`);
  }
  const [{ readHubSettings }, { fetchSnapshot }] = await Promise.all([
    import("./hub/settings.ts"),
    import("./hub/snapshot.ts"),
  ]);
  const settings = await readHubSettings(options.env ?? process.env);
  return fetchSnapshot(reference, settings, options);
}
