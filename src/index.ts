export { UserError } from "./base/errors.ts";
export type { Device, DeviceBuffer, DeviceKind, Launch, Program } from "./device/device.ts";
export { openDevice } from "./device/open.ts";
export { Engine } from "./engine/engine.ts";
export type { EngineOptions, GenerationEngine } from "./engine/engine-types.ts";
export type { FinishReason, GenerateEvent } from "./engine/events.ts";
export { type GeneratedText, generateText } from "./engine/generate-text.ts";
export {
  type CacheFootprint,
  cacheFootprint,
  type LanguageModel,
  openLanguageModel,
} from "./engine/language-model.ts";
export { promptLogits } from "./engine/prompt-logits.ts";
export type { GenerateRequest } from "./engine/request.ts";
export { pickedFolder } from "./files/blob-folder.ts";
export { keptUrlFolder } from "./files/browser-store.ts";
export { type ByteFolder, type FolderLocation, openFolder } from "./files/byte-folder.ts";
export { resolveModel } from "./formats/hub.ts";
export { readModelConfig } from "./formats/model-folder.ts";
export { type LatentCache, latentEntryBytes } from "./kernels/common/latent-cache.ts";
export { type MlaDecodeArguments, mlaDecode } from "./kernels/mla-decode/mla-decode.ts";
export { type MlaPrefillArguments, mlaPrefill } from "./kernels/mla-prefill/mla-prefill.ts";
export { renderChat } from "./text/chat-template.ts";
export { openTokenizer } from "./text/open-tokenizer.ts";
export type { Tokenizer } from "./text/tokenizer.ts";
