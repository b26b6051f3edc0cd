export { FlashmlaLanguageModel } from "./language-model.ts";
export { type Flashmla, type OpenFlashmlaOptions, openFlashmla } from "./provider.ts";
