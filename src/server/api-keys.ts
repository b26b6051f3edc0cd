import { createHash, timingSafeEqual } from "node:crypto";
import { ApiError } from "./errors.ts";

const digest = (text: string) => createHash("sha256").update(text).digest();

/** Tells which caller a request is from, by its key. */
export class ApiKeys {
  readonly #digests: readonly Buffer[];

  /** Without keys everybody is let in. */
  constructor(keys: readonly string[]) {
    this.#digests = keys.map(digest);
  }

  /** Whether a key is asked for. */
  get required(): boolean {
    return this.#digests.length > 0;
  }

  /**
   * The caller's number, "" where no key is asked for. The time it takes depends on neither the key given nor which one
   * it is: digests are compared, all of them, in constant time. Throws an ApiError of 401.
   */
  callerOf(request: Request): string {
    if (!this.required) return "";
    const given = digest(/^Bearer\s+(.+)$/i.exec(request.headers.get("authorization") ?? "")?.[1] ?? "");
    let found = -1;
    this.#digests.forEach((one, i) => {
      if (timingSafeEqual(one, given)) found = i;
    });
    if (found >= 0) return `key${found}`;
    throw new ApiError(401, "This server wants a key: send it as the header Authorization: Bearer <key>.", {
      code: "invalid_api_key",
    });
  }
}
