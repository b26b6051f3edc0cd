import { checkBoolean, checkFinite, checkInteger, describeValue } from "../base/checks.ts";

/** Restricts the tokens of one sequence, a grammar for instance. What it throws fails its request alone. */
export interface TokenConstraint {
  /** Sets the logits [vocab] of tokens that may not come next to −Infinity; called once per output token. */
  mask(logits: Float32Array): void;
  /** Takes the token that was drawn. */
  accept(tokenId: number): void;
}

/** One request: a prompt, how to draw, and when to end. A field left out or undefined has the default named here. */
export interface GenerateRequest {
  /** At least one id, each below the vocabulary's size. */
  readonly promptIds: ArrayLike<number>;
  /** 0 takes the likeliest token; 1. */
  readonly temperature?: number | undefined;
  /** Tokens kept, likeliest first; 0 keeps all; 0. */
  readonly topK?: number | undefined;
  /** Probability mass kept, 0…1; 1. */
  readonly topP?: number | undefined;
  /** Tokens below this share of the likeliest are dropped, 0…1; 0. */
  readonly minP?: number | undefined;
  /** Divides positive and multiplies negative logits of tokens in prompt or output, above 0; 1. */
  readonly repetitionPenalty?: number | undefined;
  /** Taken off the logits of tokens in the output, −2…2; 0. */
  readonly presencePenalty?: number | undefined;
  /** Taken off the logits for each time a token is in the output, −2…2; 0. */
  readonly frequencyPenalty?: number | undefined;
  /** Added to the logits, by token id, −100…100. */
  readonly logitBias?: ReadonlyMap<number, number> | undefined;
  /** 0…2⁵³−1; sequence i draws by seed + i; a random one. */
  readonly seed?: number | undefined;
  /** Sequences, 1…128; 1. */
  readonly n?: number | undefined;
  /** Strings that end the output; not part of the text unless `includeStop`. They need an engine with a tokenizer. */
  readonly stop?: readonly string[] | undefined;
  /** Ids that end the output; their text is left out. */
  readonly stopTokenIds?: readonly number[] | undefined;
  readonly includeStop?: boolean | undefined;
  /** Likeliest tokens to report with each output token, 0…20; null reports nothing; null. */
  readonly logprobs?: number | null | undefined;
  /** Whether end-of-sequence tokens are tokens like others; false. */
  readonly ignoreEos?: boolean | undefined;
  /** Output tokens before which nothing but the length ends it; 0. */
  readonly minTokens?: number | undefined;
  /** Output tokens of one sequence, at least 1; as many as the context holds. */
  readonly maxTokens?: number | undefined;
  /** Whether special tokens add nothing to the text; true. */
  readonly skipSpecialTokens?: boolean | undefined;
  /** Lower numbers run first and may displace higher ones; 0. */
  readonly priority?: number | undefined;
  /** Requests of one client share its turn: waiting clients are served alike, whatever their number of requests; "". */
  readonly client?: string | undefined;
  /** Ends the request at any moment; the iteration rejects with its reason. */
  readonly signal?: AbortSignal | undefined;
  /** Makes the constraint of sequence `index`. */
  readonly constraint?: ((index: number) => TokenConstraint) | undefined;
}

/** A request with every default filled in and every value checked. */
export interface CheckedRequest {
  readonly promptIds: readonly number[];
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly logitBias: ReadonlyMap<number, number>;
  readonly seed: number;
  readonly n: number;
  readonly stop: readonly string[];
  readonly stopTokenIds: ReadonlySet<number>;
  readonly includeStop: boolean;
  readonly logprobs: number | null;
  readonly ignoreEos: boolean;
  readonly minTokens: number;
  readonly maxTokens: number | null;
  readonly skipSpecialTokens: boolean;
  readonly priority: number;
  readonly client: string;
  readonly signal: AbortSignal | null;
  readonly constraint: ((index: number) => TokenConstraint) | null;
}

/** Sequences of one request at most. */
const MAX_SEQUENCES = 128;
const MAX_LOGPROBS = 20;

/**
 * Fills in the defaults. Throws TypeError or RangeError, naming the field, for a value of the wrong kind or outside its
 * range; `vocabSize` bounds the ids.
 */
export function checkRequest(request: GenerateRequest, vocabSize: number): CheckedRequest {
  const number = (name: keyof GenerateRequest, fallback: number, min: number, max: number) =>
    checkFinite(name, request[name] ?? fallback, { min, max });
  const integer = (name: keyof GenerateRequest, fallback: number, min: number, max = 2 ** 31 - 1) =>
    checkInteger(name, request[name] ?? fallback, { min, max });
  const flag = (name: keyof GenerateRequest, fallback: boolean) =>
    checkBoolean(name, request[name] ?? fallback);
  const id = (name: string, value: unknown) => checkInteger(name, value, { min: 0, max: vocabSize - 1 });
  const repetitionPenalty = number("repetitionPenalty", 1, 0, 1e6);
  if (repetitionPenalty === 0) throw new RangeError("repetitionPenalty must be above 0, got 0");
  return {
    promptIds: checkPrompt(request.promptIds, id),
    temperature: number("temperature", 1, 0, 1e6),
    topK: integer("topK", 0, 0),
    topP: number("topP", 1, 0, 1),
    minP: number("minP", 0, 0, 1),
    repetitionPenalty,
    presencePenalty: number("presencePenalty", 0, -2, 2),
    frequencyPenalty: number("frequencyPenalty", 0, -2, 2),
    logitBias: checkBias(request.logitBias ?? new Map(), id),
    seed: integer("seed", Math.floor(Math.random() * 2 ** 48), 0, Number.MAX_SAFE_INTEGER),
    n: integer("n", 1, 1, MAX_SEQUENCES),
    stop: [...(request.stop ?? [])],
    stopTokenIds: new Set(Array.from(request.stopTokenIds ?? [], (value) => id("stopTokenIds", value))),
    includeStop: flag("includeStop", false),
    logprobs: (request.logprobs ?? null) === null ? null : integer("logprobs", 0, 0, MAX_LOGPROBS),
    ignoreEos: flag("ignoreEos", false),
    minTokens: integer("minTokens", 0, 0),
    maxTokens: request.maxTokens === undefined ? null : integer("maxTokens", 1, 1),
    skipSpecialTokens: flag("skipSpecialTokens", true),
    priority: integer("priority", 0, -(2 ** 31)),
    client: checkClient(request.client ?? ""),
    signal: request.signal ?? null,
    constraint: request.constraint ?? null,
  };
}

type CheckId = (name: string, value: unknown) => number;

function checkPrompt(promptIds: ArrayLike<number>, id: CheckId): number[] {
  if (typeof promptIds !== "object" || promptIds === null || typeof promptIds.length !== "number") {
    throw new TypeError(`promptIds must be an array of ids, got ${describeValue(promptIds)}`);
  }
  if (promptIds.length === 0) throw new RangeError("promptIds must have at least one id, got none");
  return Array.from(promptIds, (value) => id("promptIds", value));
}

function checkBias(bias: ReadonlyMap<number, number>, id: CheckId): ReadonlyMap<number, number> {
  if (!(bias instanceof Map)) throw new TypeError(`logitBias must be a Map, got ${describeValue(bias)}`);
  for (const [tokenId, value] of bias) {
    id("logitBias", tokenId);
    checkFinite(`logitBias of ${tokenId}`, value, { min: -100, max: 100 });
  }
  return new Map(bias);
}

function checkClient(client: unknown): string {
  if (typeof client !== "string")
    throw new TypeError(`client must be a string, got ${describeValue(client)}`);
  return client;
}
