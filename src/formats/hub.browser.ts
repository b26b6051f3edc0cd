import { UserError } from "../base/errors.ts";
import type { ResolveModelOptions } from "./hub/options.ts";

export type { DownloadProgress, ResolveModelOptions } from "./hub/options.ts";

/** A browser has no cache folder of the hub: rejects with a UserError that says what to give instead. */
export async function resolveModel(model: string, _options: ResolveModelOptions = {}): Promise<string> {
  throw new UserError(
    `${model} cannot be fetched from the hub by its name in a browser; give the address of its files, as keptUrlFolder takes it`,
  );
}
