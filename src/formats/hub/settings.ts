import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { UserError } from "../../base/errors.ts";

/** Where the hub is, who asks, and where what it gives is kept. */
export interface HubSettings {
  /** Address of the hub, without a slash at its end. */
  readonly endpoint: string;
  /** The folder of `models--owner--name` folders. */
  readonly cacheFolder: string;
  readonly token: string | undefined;
  /** Never ask the network. */
  readonly offline: boolean;
  /** How long a request about a model may take, in seconds. */
  readonly requestSeconds: number;
  /** How long a download may go without a byte, in seconds. */
  readonly stallSeconds: number;
}

type Environment = Readonly<Record<string, string | undefined>>;

function folder(path: string): string {
  return path === "~" || path.startsWith("~/") ? join(homedir(), path.slice(1)) : path;
}

function readEndpoint(env: Environment): string {
  const endpoint = env.HF_ENDPOINT || "https://huggingface.co";
  if (!URL.canParse(endpoint) || !/^https?:/.test(endpoint)) {
    throw new UserError(`HF_ENDPOINT must be an http or https address, got ${JSON.stringify(endpoint)}`);
  }
  return endpoint.replace(/\/+$/, "");
}

async function readToken(env: Environment, home: string): Promise<string | undefined> {
  const path = env.HF_TOKEN_PATH ? folder(env.HF_TOKEN_PATH) : join(home, "token");
  const text = env.HF_TOKEN || (await readFile(path, "utf8").catch(() => ""));
  const token = text.trim();
  if (!/^[\x21-\x7e]*$/.test(token)) {
    throw new UserError(
      `the access token in ${env.HF_TOKEN ? "HF_TOKEN" : path} holds a space or another character no token has`,
    );
  }
  return token || undefined;
}

function readSeconds(env: Environment, name: string, standard: number): number {
  const text = env[name];
  const seconds = text ? Number(text) : standard;
  if (!(seconds > 0 && seconds < 1e6)) {
    throw new UserError(`${name} must be a number of seconds over 0, got ${JSON.stringify(text)}`);
  }
  return seconds;
}

/**
 * Reads the settings from environment variables by the rules of the hub's own client
 * (https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables), and the token's file where
 * HF_TOKEN is not set. Rejects with a UserError when one of them makes no sense.
 */
export async function readHubSettings(env: Environment): Promise<HubSettings> {
  const caches = folder(env.XDG_CACHE_HOME || join(homedir(), ".cache"));
  const home = folder(env.HF_HOME || join(caches, "huggingface"));
  return {
    endpoint: readEndpoint(env),
    cacheFolder: folder(env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(home, "hub")),
    token: await readToken(env, home),
    offline: /^(1|true|yes|on)$/i.test(env.HF_HUB_OFFLINE ?? ""),
    requestSeconds: readSeconds(env, "HF_HUB_ETAG_TIMEOUT", 10),
    stallSeconds: readSeconds(env, "HF_HUB_DOWNLOAD_TIMEOUT", 30),
  };
}
