import { UserError } from "../../base/errors.ts";
import { createRandom, type Random } from "../../base/random.ts";
import {
  type Endpoint,
  type FailedRequest,
  type LoadRequest,
  type RequestResult,
  timeRequest,
} from "./completion-client.ts";

/** What is sent. */
export interface LoadOptions {
  readonly requests: number;
  /** Prompt tokens of each request, roughly; the report counts what the server counted. */
  readonly inputTokens: number;
  /** Of those, tokens that all requests begin with. */
  readonly prefixTokens: number;
  readonly outputTokens: number;
  /** Requests a second, arriving at random; Infinity sends them as fast as `concurrency` lets it. */
  readonly rate: number;
  /** Requests under way at most. */
  readonly concurrency: number;
  readonly seed: number;
}

/** What came back. */
export interface LoadResult {
  readonly seconds: number;
  readonly results: readonly RequestResult[];
  readonly failures: readonly FailedRequest[];
}

const syllables = [
  "ro",
  "me",
  "o",
  "ju",
  "li",
  "et",
  "ve",
  "na",
  "man",
  "tu",
  "a",
  "ty",
  "balt",
  "nur",
  "se",
];

function words(random: Random, count: number): string {
  const word = () =>
    Array.from({ length: 1 + random.integer(3) }, () => syllables[random.integer(syllables.length)]).join("");
  return Array.from({ length: count }, word).join(" ");
}

const SAMPLE_WORDS = 100;

/** Tokens of one random word by the server's own count. Throws UserError when the server cannot be asked. */
export async function tokensPerWord(endpoint: Endpoint, seed: number): Promise<number> {
  const prompt = words(createRandom(seed), SAMPLE_WORDS);
  const probe = await timeRequest(endpoint, { prompt, maxTokens: 1 });
  if ("error" in probe) {
    throw new UserError(`The server at ${endpoint.url} cannot be measured: ${probe.error}`);
  }
  return probe.inputTokens / SAMPLE_WORDS;
}

/** The requests of a load: random words behind a common beginning. */
export function makeRequests(options: LoadOptions, perWord: number): LoadRequest[] {
  const random = createRandom(options.seed);
  const count = (tokens: number) => Math.max(0, Math.round(tokens / perWord));
  const prefix = words(random, count(options.prefixTokens));
  return Array.from({ length: options.requests }, () => {
    const own = words(random, Math.max(1, count(options.inputTokens - options.prefixTokens)));
    return { prompt: prefix === "" ? own : `${prefix} ${own}`, maxTokens: options.outputTokens };
  });
}

/** Seconds at which requests of a Poisson process arrive. */
function arrivals(random: Random, { requests, rate }: LoadOptions): number[] {
  let at = 0;
  return Array.from({ length: requests }, () => {
    at += rate === Number.POSITIVE_INFINITY ? 0 : -Math.log(1 - random.uniform()) / rate;
    return at;
  });
}

/** Sends every request at its time, never more than `concurrency` at once. */
export async function runLoad(
  endpoint: Endpoint,
  requests: readonly LoadRequest[],
  options: LoadOptions,
  onDone: (done: number) => void = () => {},
): Promise<LoadResult> {
  const times = arrivals(createRandom(options.seed + 1), options);
  const answers: (RequestResult | FailedRequest)[] = [];
  const start = performance.now();
  let next = 0;
  const worker = async () => {
    for (let i = next++; i < requests.length; i = next++) {
      const wait = times[i]! * 1000 - (performance.now() - start);
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
      answers.push(await timeRequest(endpoint, requests[i]!));
      onDone(answers.length);
    }
  };
  await Promise.all(Array.from({ length: Math.min(options.concurrency, requests.length) }, worker));
  const seconds = (performance.now() - start) / 1000;
  return {
    seconds,
    results: answers.filter((answer): answer is RequestResult => !("error" in answer)),
    failures: answers.filter((answer): answer is FailedRequest => "error" in answer),
  };
}
