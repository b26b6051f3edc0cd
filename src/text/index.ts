export * from "./chat-template.ts";
export * from "./incremental-detokenizer.ts";
export * from "./open-tokenizer.ts";
export * from "./stop-strings.ts";
export * from "./tokenizer.ts";
