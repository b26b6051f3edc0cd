import { errorCode, errorMessage, UserError } from "../../base/errors.ts";
import { fileError } from "../../files/file-source.ts";
import type { ModelReference } from "./reference.ts";
import type { HubSettings } from "./settings.ts";

/** The HTTP status in an error of the hub's client, undefined when no answer came. */
export function statusOf(error: unknown): number | undefined {
  if (typeof error !== "object" || error === null || !("statusCode" in error)) return undefined;
  return typeof error.statusCode === "number" ? error.statusCode : undefined;
}

/** Whether the hub could not be asked at all, or could not answer: the cache may stand in for it then. */
export function isOutage(error: unknown): boolean {
  const status = statusOf(error);
  return status === undefined ? !(error instanceof UserError) : status === 429 || status >= 500;
}

/** The shortest true word for why a request failed: a system code where there is one. */
function reasonOf(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  return (
    errorCode(cause) ?? errorCode(error) ?? (cause === undefined ? errorMessage(error) : errorMessage(cause))
  );
}

function sentence(
  status: number | undefined,
  error: unknown,
  model: ModelReference,
  settings: HubSettings,
): string {
  const { endpoint, token } = settings;
  const { name, revision } = model;
  if (status === 401 && token !== undefined) {
    return `${endpoint} did not accept the access token for ${name}; check HF_TOKEN and the name`;
  }
  if (status === 401) {
    return `${name} is no folder here and not open at ${endpoint}; check the name or, if it is private or gated, set HF_TOKEN`;
  }
  if (status === 403) {
    return `${name} is gated; ask for access at ${endpoint}/${name} and set HF_TOKEN to a token that may read it`;
  }
  if (status === 404) {
    return `${endpoint} has no model ${name} with the revision ${revision}, and there is no such folder here; check the name`;
  }
  if (status === 429) return `${endpoint} takes no more requests for now; wait a little, or set HF_TOKEN`;
  if (status !== undefined) return `${endpoint} answered with status ${status} for ${name}; try again later`;
  return (
    `cannot reach ${endpoint} for ${name} (${reasonOf(error)}), and the cache does not hold it whole; check the ` +
    "network and HF_ENDPOINT, or give a model's folder"
  );
}

/** What went wrong while the hub was asked about `model`, as one sentence that says what to do. */
export function explainHubFailure(error: unknown, model: ModelReference, settings: HubSettings): UserError {
  if (error instanceof UserError) return error;
  return new UserError(sentence(statusOf(error), error, model, settings), { cause: error });
}

/** What went wrong while `file` came down and stopped at `loaded` of `total` bytes. */
export function explainBrokenDownload(
  error: unknown,
  file: string,
  loaded: number,
  total: number,
): UserError {
  return new UserError(
    `the download of ${file} broke off at ${loaded} of ${total} bytes (${reasonOf(error)}); run the same command again to go on`,
    { cause: error },
  );
}

/** What went wrong while `path`, a file or folder of the cache, was written. */
export function diskError(path: string, error: unknown): UserError {
  if (errorCode(error) !== "ENOSPC") return fileError("write", path, error);
  return new UserError(
    `the disk is full at ${path}; free some space, or set HF_HUB_CACHE to a folder on another disk`,
    {
      cause: error,
    },
  );
}
