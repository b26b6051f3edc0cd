export { type FinishReason, type GenerateOptions, generate, promptLogits } from "./generate.ts";
export {
  type GeneratedText,
  type GenerateTextOptions,
  type GenerationTiming,
  generateText,
} from "./generate-text.ts";
export {
  type CacheFootprint,
  cacheFootprint,
  type LanguageModel,
  type OpenLanguageModelOptions,
  openLanguageModel,
} from "./language-model.ts";
export { ModelRunner, type ModelRunnerOptions } from "./model-runner.ts";
export type { AdjustLogits, DecodeRow, PrefillChunk, Runner } from "./runner-types.ts";
