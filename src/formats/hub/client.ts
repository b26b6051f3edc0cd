import { downloadFile } from "@huggingface/hub";
import type { HubSettings } from "./settings.ts";

/** The hub as one caller reaches it. */
export interface HubClient {
  readonly endpoint: string;
  /** A `fetch` with the caller's token, for requests about models, each within the settings' time. */
  readonly request: typeof fetch;
  /** The content of the file `path` of `name` at `commit` from byte `start` on. Rejects with the client's errors. */
  stream(
    file: { readonly name: string; readonly commit: string; readonly path: string },
    start: number,
    signal: AbortSignal,
  ): Promise<ReadableStream<Uint8Array>>;
}

/**
 * A `fetch` that adds the token to requests to the hub itself (a redirect to another host drops it), and obeys
 * the signal that `makeSignal` gives for each request.
 */
function authorizedFetch({ endpoint, token }: HubSettings, makeSignal: () => AbortSignal): typeof fetch {
  const { origin } = new URL(endpoint);
  return (input, init = {}) => {
    const headers = new Headers(init.headers);
    const address = input instanceof Request ? input.url : input;
    if (token !== undefined && new URL(address).origin === origin && !headers.has("authorization")) {
      headers.set("authorization", `Bearer ${token}`);
    }
    const signals = init.signal ? [init.signal, makeSignal()] : [makeSignal()];
    return fetch(input, { ...init, headers, signal: AbortSignal.any(signals) });
  };
}

/** The {@link HubClient} of `settings`; `signal` breaks every request off. */
export function createHubClient(settings: HubSettings, signal: AbortSignal | undefined): HubClient {
  const withinTime = () => {
    const limit = AbortSignal.timeout(settings.requestSeconds * 1000);
    return signal === undefined ? limit : AbortSignal.any([limit, signal]);
  };
  return {
    endpoint: settings.endpoint,
    request: authorizedFetch(settings, withinTime),
    async stream({ name, commit, path }, start, signalOfFile) {
      const blob = await downloadFile({
        repo: name,
        path,
        revision: commit,
        hubUrl: settings.endpoint,
        fetch: authorizedFetch(settings, () => signalOfFile),
      });
      if (blob === null) throw new Error(`${settings.endpoint} lists ${path} but does not have it`);
      return (start === 0 ? blob : blob.slice(start)).stream();
    },
  };
}
