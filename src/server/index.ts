export * from "./errors.ts";
export * from "./grammar/grammar-compiler.ts";
export * from "./handler.ts";
export * from "./listen.ts";
export * from "./metrics.ts";
export * from "./request-context.ts";
export * from "./request-log.ts";
export * from "./served-model.ts";
