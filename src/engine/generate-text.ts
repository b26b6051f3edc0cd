import type { GenerationEngine } from "./engine-types.ts";
import type { FinishReason } from "./events.ts";
import type { GenerateRequest } from "./request.ts";

/** What became of one request. */
export interface GeneratedText {
  readonly text: string;
  readonly promptTokens: number;
  readonly tokenIds: readonly number[];
  /** `cancelled` when the request's signal ended it. */
  readonly finishReason: FinishReason | "cancelled";
  readonly timing: GenerationTiming;
}

/** Where the time of a request went. */
export interface GenerationTiming {
  /** From the call to the first token. */
  readonly firstTokenMs: number;
  /** From the first token to the last. */
  readonly decodeMs: number;
  /** Prompt tokens over the time to the first token. */
  readonly prefillTokensPerSecond: number;
  /** Tokens after the first over `decodeMs`; 0 when there are none. */
  readonly decodeTokensPerSecond: number;
}

/** Notes when the first and the last token came. */
class Stopwatch {
  readonly #start = performance.now();
  #first = 0;
  #last = 0;
  #firstTokens = 0;

  tick(tokens: number): void {
    this.#last = performance.now();
    if (this.#firstTokens > 0) return;
    this.#first = this.#last;
    this.#firstTokens = tokens;
  }

  timing(promptTokens: number, outputTokens: number): GenerationTiming {
    const end = this.#firstTokens === 0 ? performance.now() : this.#first;
    const rate = (tokens: number, ms: number) => (ms > 0 ? (tokens / ms) * 1000 : 0);
    const firstTokenMs = end - this.#start;
    const decodeMs = this.#last - this.#first;
    return {
      firstTokenMs,
      decodeMs,
      prefillTokensPerSecond: rate(promptTokens, firstTokenMs),
      decodeTokensPerSecond: rate(outputTokens - this.#firstTokens, decodeMs),
    };
  }
}

/**
 * Runs a request of one sequence and yields its text in pieces, never half a character and never the beginning of a stop
 * string. A signal that aborts ends the text with the reason `cancelled`. Throws as `GenerationEngine.generate` does.
 */
export async function* generateText(
  engine: GenerationEngine,
  request: Omit<GenerateRequest, "n">,
): AsyncGenerator<string, GeneratedText> {
  const watch = new Stopwatch();
  const tokenIds: number[] = [];
  let text = "";
  let finishReason: GeneratedText["finishReason"] = "stop";
  try {
    for await (const event of engine.generate(request)) {
      if (event.kind === "finish") {
        finishReason = event.reason;
        continue;
      }
      if (event.tokenIds.length > 0) watch.tick(event.tokenIds.length);
      tokenIds.push(...event.tokenIds);
      text += event.text;
      if (event.text !== "") yield event.text;
    }
  } catch (error) {
    if (request.signal?.aborted !== true) throw error;
    finishReason = "cancelled";
  }
  const promptTokens = request.promptIds.length;
  const timing = watch.timing(promptTokens, tokenIds.length);
  return { text, promptTokens, tokenIds, finishReason, timing };
}
