import { errorMessage, UserError } from "../base/errors.ts";
import { byteFallbackStep, byteLevelStep } from "./byte-decoders.ts";
import type { DecoderStep } from "./decoder-step.ts";
import { isRecord } from "./json.ts";

/**
 * What a step is handed in one piece: a whole token, some of the text of one or more tokens, or some of the one text
 * that all tokens were fused into. Steps that look at the ends of a token need the first or the last of them.
 */
type Grain = "token" | "fragment" | "text";

interface CompiledStep {
  readonly create: () => DecoderStep;
  readonly yields: Grain;
}

const supported = "ByteLevel, ByteFallback, Metaspace, Replace, Strip, Fuse and a Sequence of these";

/**
 * Compiles the `decoder` entry of a tokenizer.json into a factory of streaming decoders; null joins the tokens with
 * spaces, as the tokenizers library does. Throws UserError for a decoder that cannot be streamed or is malformed.
 */
export function compileDecoder(config: unknown): () => DecoderStep {
  if (config === null || config === undefined) return joinWithSpaces;
  const creates: (() => DecoderStep)[] = [];
  let grain: Grain = "token";
  for (const entry of flatten(config)) {
    const step = compileStep(entry, grain);
    creates.push(step.create);
    grain = step.yields;
  }
  return () => chainSteps(creates.map((create) => create()));
}

/** Feeds each step with what the step before it returns. */
function chainSteps(steps: readonly DecoderStep[]): DecoderStep {
  return {
    push: (piece, added) => steps.reduce((text, step, i) => step.push(text, added && i === 0), piece),
    flush: () => steps.reduce((text, step) => (text && step.push(text, false)) + step.flush(), ""),
  };
}

function flatten(config: unknown): Record<string, unknown>[] {
  if (!isRecord(config)) throw new UserError("tokenizer.json has a decoder that is not an object.");
  if (config.type !== "Sequence") return [config];
  if (!Array.isArray(config.decoders)) {
    throw new UserError("tokenizer.json has a Sequence decoder without its list of decoders.");
  }
  return config.decoders.flatMap(flatten);
}

function compileStep(config: Record<string, unknown>, grain: Grain): CompiledStep {
  switch (config.type) {
    case "ByteLevel":
      return { create: byteLevelStep, yields: "text" };
    case "ByteFallback":
      if (grain === "token") return { create: byteFallbackStep, yields: "fragment" };
      break;
    case "Fuse":
      return { create: () => stateless((text) => text), yields: "text" };
    case "Metaspace":
      return { create: () => metaspaceStep(config), yields: grain };
    case "Replace":
      if (grain === "token" || isOneCharacter(config))
        return { create: replaceFactory(config), yields: grain };
      break;
    case "Strip":
      if (grain === "token") return { create: () => stripTokensStep(config), yields: grain };
      if (grain === "text") return { create: () => stripTextStep(config), yields: grain };
      break;
  }
  throw new UserError(
    `tokenizer.json uses the decoder ${String(config.type)} in a way that is not supported; supported are ${supported}.`,
  );
}

function stateless(map: (text: string) => string): DecoderStep {
  return { push: map, flush: () => "" };
}

function joinWithSpaces(): DecoderStep {
  let separator = "";
  return {
    push: (token) => {
      const text = separator + token;
      separator = " ";
      return text;
    },
    flush: () => {
      separator = "";
      return "";
    },
  };
}

/** Turns the replacement character into spaces and drops the one that encoding put before the first token. */
function metaspaceStep(config: Record<string, unknown>): DecoderStep {
  const replacement = typeof config.replacement === "string" ? config.replacement : "▁";
  const prepends = config.prepend_scheme !== "never";
  let first = prepends;
  return {
    push: (piece) => {
      const text = piece.replaceAll(replacement, " ");
      if (!first || text === "") return text;
      first = false;
      return text.startsWith(" ") ? text.slice(1) : text;
    },
    flush: () => {
      first = prepends;
      return "";
    },
  };
}

function isOneCharacter({ pattern }: Record<string, unknown>): boolean {
  return isRecord(pattern) && typeof pattern.String === "string" && pattern.String.length === 1;
}

function replaceFactory({ pattern, content }: Record<string, unknown>): () => DecoderStep {
  const search = searchOf(pattern);
  const replacement = typeof content === "string" ? content : "";
  return () => stateless((text) => text.replaceAll(search, () => replacement));
}

function searchOf(pattern: unknown): string | RegExp {
  if (isRecord(pattern) && typeof pattern.String === "string") return pattern.String;
  try {
    if (isRecord(pattern) && typeof pattern.Regex === "string") return new RegExp(pattern.Regex, "gu");
  } catch (error) {
    throw new UserError(
      `tokenizer.json has a Replace decoder whose pattern is not supported: ${errorMessage(error)}`,
      { cause: error },
    );
  }
  throw new UserError("tokenizer.json has a Replace decoder without a pattern.");
}

/** Strip over each token on its own. */
function stripTokensStep(config: Record<string, unknown>): DecoderStep {
  const strip = stripTextStep(config);
  return stateless((token) => {
    const text = strip.push(token, false);
    strip.flush();
    return text;
  });
}

/** Strip over the fused text: up to `start` characters off its beginning, up to `stop` off its end. */
function stripTextStep(config: Record<string, unknown>): DecoderStep {
  const content = String(config.content ?? "");
  const start = Number(config.start ?? 0);
  const stop = Number(config.stop ?? 0);
  let left = start;
  let held = "";
  return {
    push: (piece) => {
      let from = 0;
      while (left > 0 && piece[from] === content) {
        from++;
        left--;
      }
      if (from < piece.length) left = 0;
      const text = held + piece.slice(from);
      let end = text.length;
      while (text.length - end < stop && end > 0 && text[end - 1] === content) end--;
      held = text.slice(end);
      return text.slice(0, end);
    },
    flush: () => {
      left = start;
      held = "";
      return "";
    },
  };
}
