/** Where the page takes a model from. */
export type ModelChoice =
  | { readonly kind: "address"; readonly address: string }
  | { readonly kind: "files"; readonly files: readonly File[] };

/** How a model is opened. */
export interface OpenRequest {
  readonly kind: "open";
  readonly model: ModelChoice;
  /** `automatic` takes the best one. */
  readonly device: "automatic" | "webgpu" | "cpu";
  /** Of the CPU device; default: all processors where the page may have threads. */
  readonly threads: number | null;
}

/** What is generated, and how tokens are drawn. */
export interface GenerateRequest {
  readonly kind: "generate";
  readonly prompt: string;
  /** Whether the prompt is a user's message to the model's chat template. */
  readonly asChat: boolean;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly maxTokens: number;
  readonly seed: number | null;
}

/** What the page asks of the engine's worker. */
export type ToWorker =
  | OpenRequest
  | GenerateRequest
  | { readonly kind: "stop" }
  | { readonly kind: "forget" };

/** What is shown of an open model. */
export interface ModelFacts {
  readonly name: string;
  readonly type: string;
  readonly weightBytes: number;
  /** Milliseconds from the request to ready. */
  readonly openMs: number;
  readonly deviceKind: "cpu" | "webgpu" | "cuda";
  readonly deviceName: string;
  /** Why WebGPU was passed over; null when it is in use or was not wanted. */
  readonly withoutWebGpu: string | null;
  /** Why there is one thread only; null where there are more or the device has none. */
  readonly withoutThreads: string | null;
  readonly maxContext: number;
  readonly pageSize: number;
  readonly pageCount: number;
  readonly cacheDtype: string;
  readonly bytesPerToken: number;
  readonly fullHeadsBytesPerToken: number;
  readonly hasChat: boolean;
  readonly defaults: { readonly temperature: number; readonly topK: number; readonly topP: number };
  /** Why files are not kept for the next visit; null when they are, or were picked. */
  readonly notKept: string | null;
}

/** How far a generation is. */
export interface GenerationState {
  readonly promptTokens: number;
  readonly outputTokens: number;
  /** Of the prompt, found in the cache; known at the end. */
  readonly cachedTokens: number | null;
  /** From the request to the first token; null before it. */
  readonly firstTokenMs: number | null;
  /** From the first token to the last. */
  readonly decodeMs: number;
  /** Tokens of the output that came since the request, or since the device was opened anew. */
  readonly timedTokens: number;
  readonly usedPages: number;
  /** Free pages that still hold a prompt that may come again. */
  readonly reusablePages: number;
}

/** What the worker tells the page. */
export type FromWorker =
  | {
      readonly kind: "progress";
      readonly stage: "fetching" | "loading";
      readonly done: number;
      readonly total: number;
    }
  | { readonly kind: "ready"; readonly facts: ModelFacts }
  | { readonly kind: "tokens"; readonly text: string; readonly state: GenerationState }
  | { readonly kind: "finished"; readonly reason: string; readonly state: GenerationState }
  | { readonly kind: "forgotten" }
  /** The device was lost, and the model is opened anew. */
  | { readonly kind: "reopening"; readonly message: string }
  /** The generation that was under way goes on. */
  | { readonly kind: "resumed" }
  | { readonly kind: "failed"; readonly during: "open" | "generate"; readonly message: string };
