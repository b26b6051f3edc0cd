import { errorMessage, UserError } from "../base/errors.ts";

/** How files behind an address are fetched. */
export interface HttpOptions {
  /** Default: the runtime's own. */
  readonly fetch?: typeof fetch | undefined;
  /** Ends requests under way; they reject with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Requests that failed on the way, or were answered with a passing fault, are made again after these milliseconds. */
const pauses = [300, 1500];

/** One file behind an address: requests with retries, and failures as sentences. */
export class HttpFile {
  readonly name: string;
  readonly #url: URL;
  readonly #fetch: typeof fetch;
  readonly #signal: AbortSignal | undefined;

  constructor(url: URL, { fetch, signal }: HttpOptions) {
    this.name = url.href;
    this.#url = url;
    this.#fetch = fetch ?? globalThis.fetch.bind(globalThis);
    this.#signal = signal;
  }

  /** Asks for bytes `begin` to `end` (exclusive; to the file's end when not given). Any status but 5xx resolves. */
  request(begin: number, end?: number): Promise<Response> {
    const last = end === undefined ? "" : end - 1;
    return this.#attempt({ headers: { Range: `bytes=${begin}-${last}` } });
  }

  /** Asks for the headers alone. */
  head(): Promise<Response> {
    return this.#attempt({ method: "HEAD" });
  }

  async #attempt(init: RequestInit): Promise<Response> {
    for (const pause of [...pauses, null]) {
      const answer = await this.#try(init);
      if (answer instanceof Response && (answer.status < 500 || pause === null)) return answer;
      if (pause === null) throw answer;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
    throw new Error("unreachable");
  }

  async #try(init: RequestInit): Promise<Response | UserError> {
    try {
      // A browser's cache of answers would hold the weights a second time.
      return await this.#fetch(this.#url, { ...init, cache: "no-store", signal: this.#signal ?? null });
    } catch (cause) {
      return this.lost(cause);
    }
  }

  /** The UserError of a request that got no answer, or of an answer that broke off. Throws what the signal aborts with. */
  lost(cause: unknown): UserError {
    this.#signal?.throwIfAborted();
    const { location } = globalThis as { location?: Location };
    const isForeign = location !== undefined && location.origin !== this.#url.origin;
    const foreign = isForeign ? ", and that the server allows requests from other pages (CORS)" : "";
    return new UserError(
      `${this.name} cannot be reached (${errorMessage(cause)}); check the address and the network${foreign}.`,
      { cause },
    );
  }

  /** The UserError of an answer that is no success. */
  refused({ status }: Response): UserError {
    const reason = status === 401 || status === 403 ? "it may not be read without permission" : "try later";
    return new UserError(`${this.name}: the server answers with status ${status}; ${reason}.`);
  }
}
