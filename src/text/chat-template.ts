import { Environment, Interpreter, parse, tokenize } from "@huggingface/jinja";
import { describeValue } from "../base/checks.ts";
import { errorMessage, UserError } from "../base/errors.ts";
import { isRecord } from "./json.ts";
import { strftime } from "./strftime.ts";

/** One message of a conversation; templates may read further fields (tool_calls, name, reasoning_content …). */
export interface ChatMessage {
  /** "system", "user", "assistant", "tool", or whatever else the template knows. */
  readonly role: string;
  /** The text, or the parts of it in the form the template expects. */
  readonly content?: string | null | readonly object[];
  readonly [field: string]: unknown;
}

/** What {@link renderChat} renders. */
export interface ChatOptions {
  readonly messages: readonly ChatMessage[];
  /** Whether the text ends where the assistant's answer begins; true when not given. */
  readonly addGenerationPrompt?: boolean;
  /** JSON schemas of the functions the model may call. */
  readonly tools?: readonly object[];
  /** Which of several templates; when not given "tool_use" if there are tools and such a template, else "default". */
  readonly templateName?: string;
  /** In place of the tokenizer's own. */
  readonly bosToken?: string;
  /** In place of the tokenizer's own. */
  readonly eosToken?: string;
  /** Further variables of the template, such as `enable_thinking`. */
  readonly variables?: Readonly<Record<string, unknown>>;
  /** What `strftime_now` takes for now; the present when not given. */
  readonly now?: Date;
}

/** The chat templates of one model, by name ("default" for the only one), and the special tokens they may name. */
export interface ChatTemplate {
  readonly templates: ReadonlyMap<string, string>;
  /** Such as `bos_token`, as text. */
  readonly specialTokens: Readonly<Record<string, string>>;
}

class Refusal extends Error {}

/** Most items that `range` makes, as in Jinja's own sandbox. */
const maxRange = 100_000;

/**
 * Reads a chat template as Hugging Face stores it: one string, a list of `{name, template}`, or a record by name.
 * Returns undefined when there is none. Throws UserError when it is none of these.
 */
export function readChatTemplate(
  source: unknown,
  specialTokens: Readonly<Record<string, string>> = {},
): ChatTemplate | undefined {
  if (source === undefined || source === null) return undefined;
  const templates = new Map<string, string>();
  for (const [name, template] of namedTemplates(source)) {
    if (typeof name !== "string" || typeof template !== "string") {
      throw new UserError(
        "The model's chat template is neither text nor a list of named texts; download the model again.",
      );
    }
    templates.set(name, template);
  }
  return templates.size === 0 ? undefined : { templates, specialTokens };
}

/**
 * Renders a conversation into the prompt the model was trained on, as transformers' `apply_chat_template` does. The
 * text holds the special tokens already: encode it with `addSpecialTokens: false`. Throws UserError when `template` is
 * undefined, is not valid Jinja, or refuses the messages; TypeError when messages are not objects with a role.
 */
export function renderChat(template: ChatTemplate | undefined, options: ChatOptions): string {
  if (template === undefined) {
    throw new UserError(
      "This model has no chat template; use generate instead, which continues a plain prompt, or give a template.",
    );
  }
  checkMessages(options.messages);
  const program = parsedTemplate(template, chooseTemplate(template, options));
  try {
    const environment = new Environment();
    for (const [name, value] of Object.entries(variablesOf(template, options))) environment.set(name, value);
    return String(new Interpreter(environment).run(program).value);
  } catch (error) {
    const problem = error instanceof Refusal ? "refuses these messages" : "fails on these messages";
    throw new UserError(`The model's chat template ${problem}: ${errorMessage(error)}`, { cause: error });
  }
}

function namedTemplates(source: unknown): (readonly [unknown, unknown])[] {
  if (typeof source === "string") return [["default", source]];
  if (isRecord(source)) return Object.entries(source);
  if (!Array.isArray(source)) return [[undefined, undefined]];
  return source.map((entry: unknown) =>
    isRecord(entry) ? [entry.name, entry.template] : [undefined, undefined],
  );
}

function checkMessages(messages: unknown): void {
  if (!Array.isArray(messages)) {
    throw new TypeError(`messages must be an array, got ${describeValue(messages)}`);
  }
  messages.forEach((message: unknown, i) => {
    if (!isRecord(message))
      throw new TypeError(`messages[${i}] must be an object, got ${describeValue(message)}`);
    if (typeof message.role !== "string") {
      throw new TypeError(`messages[${i}].role must be a string, got ${describeValue(message.role)}`);
    }
  });
}

function chooseTemplate({ templates }: ChatTemplate, { templateName, tools }: ChatOptions): string {
  const wanted = templateName ?? (tools !== undefined && templates.has("tool_use") ? "tool_use" : "default");
  const found = templates.get(wanted);
  if (found !== undefined) return found;
  const names = [...templates.keys()].join(", ");
  throw new UserError(`The model has no chat template named ${wanted}; choose one of ${names}.`);
}

type Program = ReturnType<typeof parse>;

/** Parsing takes most of the time of a short conversation: 0.2 of 0.3 ms. */
const parsed = new WeakMap<ChatTemplate, Map<string, Program>>();

function parsedTemplate(template: ChatTemplate, source: string): Program {
  const programs = parsed.get(template) ?? new Map<string, Program>();
  parsed.set(template, programs);
  const program = programs.get(source) ?? parseTemplate(source);
  programs.set(source, program);
  return program;
}

function parseTemplate(source: string): Program {
  try {
    return parse(tokenize(source, { trim_blocks: true, lstrip_blocks: true }));
  } catch (error) {
    throw new UserError(`The model's chat template cannot be read: ${errorMessage(error)}`, { cause: error });
  }
}

/** Everything a template can name: Jinja's constants, transformers' functions, special tokens, then the caller's. */
function variablesOf(template: ChatTemplate, options: ChatOptions): Record<string, unknown> {
  const now = options.now ?? new Date();
  return {
    true: true,
    True: true,
    false: false,
    False: false,
    none: null,
    None: null,
    range,
    raise_exception: (message: unknown) => {
      throw new Refusal(String(message));
    },
    strftime_now: (format: unknown) => strftime(now, String(format)),
    ...template.specialTokens,
    ...(options.bosToken === undefined ? {} : { bos_token: options.bosToken }),
    ...(options.eosToken === undefined ? {} : { eos_token: options.eosToken }),
    documents: null,
    ...options.variables,
    messages: options.messages,
    tools: options.tools ?? null,
    add_generation_prompt: options.addGenerationPrompt ?? true,
  };
}

function range(first: number, second?: number, step = 1): number[] {
  const [start, stop] = second === undefined ? [0, first] : [first, second];
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (!(length <= maxRange)) throw new RangeError(`range of more than ${maxRange} items`);
  return Array.from({ length }, (_, i) => start + i * step);
}
