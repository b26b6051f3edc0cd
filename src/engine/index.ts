export { type CacheFootprint, cacheFootprint } from "./cache-footprint.ts";
export { Engine } from "./engine.ts";
export type { EngineOptions, GenerationEngine } from "./engine-types.ts";
export { ContextLengthError, EngineClosedError, QueueFullError, StepError } from "./errors.ts";
export type {
  FinishEvent,
  FinishReason,
  GenerateEvent,
  OutputLogprob,
  TokenLogprob,
  TokensEvent,
  Usage,
} from "./events.ts";
export {
  type GeneratedText,
  type GenerationTiming,
  generateText,
} from "./generate-text.ts";
export {
  type LanguageModel,
  modelFit,
  type OpenLanguageModelOptions,
  openLanguageModel,
} from "./language-model.ts";
export { ModelRunner, type ModelRunnerOptions } from "./model-runner.ts";
export { promptLogits } from "./prompt-logits.ts";
export type { GenerateRequest, TokenConstraint } from "./request.ts";
export type { AdjustLogits, DecodeRow, PrefillChunk, Runner } from "./runner-types.ts";
export type {
  EngineObserver,
  EngineStatistics,
  RequestSummary,
  SequenceTimings,
  StepTimings,
} from "./statistics.ts";
