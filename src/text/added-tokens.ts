import { isRecord } from "./json.ts";

/** One entry of a tokenizer.json's `added_tokens`. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
  readonly [flag: string]: unknown;
}

const specialNames = [
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
];

/**
 * The special tokens that a tokenizer_config.json names, as text by their name (`bos_token`, `eos_token` …); each is
 * either a string there or an object with `content`.
 */
export function namedSpecialTokens(config: Readonly<Record<string, unknown>>): Record<string, string> {
  const named: Record<string, string> = {};
  for (const name of specialNames) {
    const text = tokenText(config[name]);
    if (text !== undefined) named[name] = text;
  }
  return named;
}

/**
 * The added tokens of a tokenizer as transformers sees them: those of tokenizer.json, with the flags of
 * tokenizer_config.json's `added_tokens_decoder` over them; the further ones it lists; and every token that the config
 * names as special. `idOf` finds tokens of the model's own vocabulary. Malformed entries are left out.
 */
export function mergeAddedTokens(
  listed: unknown,
  config: Readonly<Record<string, unknown>>,
  idOf: (token: string) => number | undefined,
): AddedToken[] {
  const merged = new Map<string, AddedToken>();
  const add = (content: unknown, id: unknown, flags: Readonly<Record<string, unknown>>): void => {
    if (typeof content !== "string" || content === "") return;
    const known = merged.get(content);
    const useId = known?.id ?? idOf(content) ?? id;
    if (typeof useId !== "number" || !Number.isInteger(useId)) return;
    merged.set(content, { special: false, ...known, ...flags, content, id: useId });
  };
  for (const entry of Array.isArray(listed) ? listed : []) {
    if (isRecord(entry)) add(entry.content, entry.id, entry);
  }
  const decoder = isRecord(config.added_tokens_decoder) ? config.added_tokens_decoder : {};
  for (const [id, entry] of Object.entries(decoder)) {
    if (isRecord(entry)) add(entry.content, Number(id), entry);
  }
  for (const content of configuredSpecialTokens(config)) {
    const flags = merged.has(content) ? { special: true } : { special: true, normalized: false };
    add(content, undefined, flags);
  }
  return [...merged.values()];
}

function configuredSpecialTokens(config: Readonly<Record<string, unknown>>): string[] {
  const lists = [config.additional_special_tokens, config.extra_special_tokens];
  const extra = lists.flatMap((list): unknown[] => {
    if (Array.isArray(list)) return list;
    return isRecord(list) ? Object.values(list) : [];
  });
  const texts = extra.map(tokenText).filter((text) => text !== undefined);
  return [...Object.values(namedSpecialTokens(config)), ...texts];
}

function tokenText(token: unknown): string | undefined {
  if (typeof token === "string") return token;
  return isRecord(token) && typeof token.content === "string" ? token.content : undefined;
}
