import type { Usage } from "../engine/events.ts";
import type { RequestRecord } from "./request-log.ts";

/** The `usage` of an answer: sequences of one prompt share its tokens. */
export class UsageTotal {
  #prompt = 0;
  #cached = 0;
  #completion = 0;
  readonly #prompts = new Set<number>();

  /** Adds what one sequence of the request's prompt number `prompt` used. */
  add(usage: Usage, prompt = 0): void {
    this.#completion += usage.completionTokens;
    if (this.#prompts.has(prompt)) return;
    this.#prompts.add(prompt);
    this.#prompt += usage.promptTokens;
    this.#cached += usage.cachedTokens;
  }

  /** Notes the sums so far for the log. */
  record(record: RequestRecord): void {
    record.promptTokens = this.#prompt;
    record.cachedTokens = this.#cached;
    record.completionTokens = this.#completion;
  }

  /** OpenAI's fields. */
  toJSON() {
    return {
      prompt_tokens: this.#prompt,
      completion_tokens: this.#completion,
      total_tokens: this.#prompt + this.#completion,
      prompt_tokens_details: { cached_tokens: this.#cached },
    };
  }
}
