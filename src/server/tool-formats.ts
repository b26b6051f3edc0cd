import type { ChatTemplate } from "../text/chat-template.ts";

/** A call the model wrote: the function's name, and its arguments as JSON text. */
export interface WrittenCall {
  readonly name: string;
  readonly arguments: string;
}

/** How a family of models writes its calls into its text. */
export interface ToolFormat {
  readonly name: string;
  /** Begins a call or a list of calls. */
  readonly begin: string;
  /** Ends it; null when it goes on to the end of the text. */
  readonly end: string | null;
  /** The calls between begin and end; null when it holds none that can be read. */
  parse(inner: string): readonly WrittenCall[] | null;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function toCall(value: unknown): WrittenCall | null {
  if (!isRecord(value) || typeof value.name !== "string") return null;
  const given = value.arguments ?? value.parameters ?? {};
  return { name: value.name, arguments: typeof given === "string" ? given : JSON.stringify(given) };
}

/** Calls of a JSON value, one or a list; null unless each has a name. */
export function callsOf(value: unknown): WrittenCall[] | null {
  const calls = (Array.isArray(value) ? value : [value]).map(toCall);
  return calls.every((call) => call !== null) ? calls : null;
}

const jsonTags: ToolFormat = {
  name: "json in <tool_call>",
  begin: "<tool_call>",
  end: "</tool_call>",
  parse: (inner) => callsOf(parseJson(inner)),
};

const argumentTags: ToolFormat = {
  name: "argument tags in <tool_call>",
  begin: "<tool_call>",
  end: "</tool_call>",
  parse(inner) {
    const name = inner.split("<arg_key>", 1)[0]?.trim() ?? "";
    if (name === "") return null;
    const pairs = [
      ...inner.matchAll(/<arg_key>([\s\S]*?)<\/arg_key>\s*<arg_value>([\s\S]*?)<\/arg_value>/g),
    ].map(([, key = "", value = ""]) => [key.trim(), parseJson(value) ?? value]);
    return [{ name, arguments: JSON.stringify(Object.fromEntries(pairs)) }];
  },
};

const deepseek: ToolFormat = {
  name: "deepseek",
  begin: "<｜tool▁calls▁begin｜>",
  end: "<｜tool▁calls▁end｜>",
  parse(inner) {
    const calls = [
      ...inner.matchAll(/<｜tool▁call▁begin｜>([\s\S]*?)<｜tool▁sep｜>([\s\S]*?)<｜tool▁call▁end｜>/g),
    ].map(([, kind = "", body = ""]) => {
      const fenced = /^\s*([^\n]*?)\s*\n```(?:json)?\n([\s\S]*?)\n?```\s*$/.exec(body);
      const name = fenced?.[1] ?? kind.trim();
      return { name, arguments: (fenced?.[2] ?? body).trim() };
    });
    return calls.length === 0 || calls.some(({ name }) => name === "") ? null : calls;
  },
};

const mistral: ToolFormat = {
  name: "mistral",
  begin: "[TOOL_CALLS]",
  end: null,
  parse(inner) {
    if (!inner.includes("[ARGS]")) return callsOf(parseJson(inner));
    return inner.split("[TOOL_CALLS]").map((call) => {
      const [name = "", given = ""] = call.split("[ARGS]");
      return { name: (name.split("[CALL_ID]")[0] ?? "").trim(), arguments: given.trim() };
    });
  },
};

/** The format a chat template shows its model; null when it is none of those known here. */
export function toolFormatOf(chat: ChatTemplate | undefined): ToolFormat | null {
  const text = [...(chat?.templates.values() ?? [])].join("\n");
  if (text.includes(deepseek.begin)) return deepseek;
  if (text.includes(mistral.begin)) return mistral;
  if (!text.includes(jsonTags.begin)) return null;
  return text.includes("<arg_key>") ? argumentTags : jsonTags;
}
