import { StopStringMatcher } from "../text/stop-strings.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { type FinishReason, type GenerateOptions, generate } from "./generate.ts";
import type { LanguageModel } from "./language-model.ts";

/** How {@link generateText} goes about it. */
export interface GenerateTextOptions extends GenerateOptions {
  /** Texts that end the output and are not part of it. */
  readonly stopStrings?: readonly string[] | undefined;
}

/** What became of a text. */
export interface GeneratedText {
  readonly text: string;
  readonly promptTokens: number;
  readonly tokenIds: readonly number[];
  readonly finishReason: FinishReason | "cancelled";
  readonly timing: GenerationTiming;
}

/** Where the time went. */
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

class Stopwatch {
  readonly #start = performance.now();
  #first = 0;
  #last = 0;
  #tokens = 0;

  tick(): void {
    this.#last = performance.now();
    if (this.#tokens++ === 0) this.#first = this.#last;
  }

  timing(promptTokens: number): GenerationTiming {
    const firstTokenMs = this.#tokens === 0 ? performance.now() - this.#start : this.#first - this.#start;
    const decodeMs = this.#last - this.#first;
    const rate = (tokens: number, ms: number) => (ms > 0 ? (tokens / ms) * 1000 : 0);
    return {
      firstTokenMs,
      decodeMs,
      prefillTokensPerSecond: rate(promptTokens, firstTokenMs),
      decodeTokensPerSecond: rate(Math.max(0, this.#tokens - 1), decodeMs),
    };
  }
}

/**
 * Continues `promptIds` and yields the text in pieces, never half a character and never the beginning of a stop string.
 * A signal that aborts ends the text with the reason "cancelled". Throws as {@link generate} does.
 */
export async function* generateText(
  model: LanguageModel,
  tokenizer: Tokenizer,
  promptIds: readonly number[],
  options: GenerateTextOptions = {},
): AsyncGenerator<string, GeneratedText> {
  const watch = new Stopwatch();
  const detokenizer = tokenizer.stream();
  const matcher = new StopStringMatcher(options.stopStrings ?? []);
  const tokens = generate(model, promptIds, options);
  const tokenIds: number[] = [];
  let text = "";
  let finishReason: GeneratedText["finishReason"] = "stop";
  const show = (piece: string, isLast: boolean): string => {
    const shown = matcher.push(piece).text + (isLast ? matcher.flush() : "");
    text += shown;
    return shown;
  };
  try {
    for (let next = await tokens.next(); ; next = await tokens.next()) {
      if (next.done) {
        finishReason = next.value;
        break;
      }
      watch.tick();
      tokenIds.push(next.value);
      const piece = show(detokenizer.push(next.value), false);
      if (piece !== "") yield piece;
      if (matcher.found !== undefined) break;
    }
  } catch (error) {
    if (options.signal?.aborted !== true) throw error;
    finishReason = "cancelled";
  } finally {
    await tokens.return("stop");
  }
  const rest = show(detokenizer.flush(), true);
  if (rest !== "") yield rest;
  const timing = watch.timing(promptIds.length);
  return { text, promptTokens: promptIds.length, tokenIds, finishReason, timing };
}
