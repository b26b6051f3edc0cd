import { checkFinite, checkInteger } from "../base/checks.ts";
import { UserError } from "../base/errors.ts";
import { type CacheForm, cacheBytesPerToken, cacheForms } from "./cache-forms.ts";
import { type Capacity, capacityOf } from "./capacity.ts";
import { checkLoad, type Load, middleContext, requestTokens } from "./load.ts";
import { activeWeights, type PlanModel, totalWeights } from "./plan-model.ts";
import { type Deployment, decodeStep, prefillStep, type StepTime } from "./roofline.ts";

/** Hours of an average month: 365.25 · 24 / 12. */
export const HOURS_A_MONTH = 730.5;

/** What is planned. */
export interface PlanInput {
  readonly model: PlanModel;
  readonly deployment: Omit<Deployment, "form">;
  readonly load: Load;
  /** Dollars an hour of one GPU. */
  readonly pricePerHour: number;
  /** Copies of the model (data parallelism); default: as many as the load needs. */
  readonly copies?: number | undefined;
}

/** Why a form of cache cannot serve the load. */
export type Obstacle = "weights" | "request" | "first token" | "token";

/** How one form of the cache serves the load. */
export interface FormPlan {
  readonly form: CacheForm;
  /** Over all layers, before it is divided between GPUs. */
  readonly bytesPerToken: number;
  readonly capacity: Capacity;
  /** Tokens of the longest single sequence that fits, at most what the model was made for. */
  readonly largestContext: number;
  /** Sequences of the load's length that fit the memory. */
  readonly largestBatch: number;
  /** What stands in the way; null when the load can be served. */
  readonly obstacle: Obstacle | null;
  /** At the batch that is planned for; null where there is none. */
  readonly service: Service | null;
}

/** A deployment at its planned batch. */
export interface Service {
  readonly batch: number;
  readonly decode: StepTime;
  readonly prefill: StepTime;
  /** Decode step and the share of others' prompts: what a reader waits between two tokens. */
  readonly tokenLatencyMs: number;
  readonly firstTokenLatencyMs: number;
  /** Requests a second of one copy at full load. */
  readonly requestsPerSecond: number;
  /** Output tokens a second of each GPU at full load. */
  readonly tokensPerSecondPerGpu: number;
  readonly copies: number;
  readonly gpus: number;
  /** Share of what the copies could serve that the load asks for. Over 1: they cannot. */
  readonly utilisation: number;
  readonly dollarsPerMonth: number;
  readonly dollarsPerMillionTokens: number;
}

/** A plan: every form of the cache for the same load. */
export interface Plan {
  readonly totalWeights: number;
  readonly activeWeights: number;
  readonly forms: readonly FormPlan[];
}

/**
 * What a batch of B gives: a copy alternates decode steps with prompts, B prompts for every O steps, so a token takes
 * T_decode + T_prefill·B/O, and a copy serves B requests in O tokens' time.
 */
export function serviceTimes(model: PlanModel, deployment: Deployment, load: Load, batch: number) {
  const decode = decodeStep(model, deployment, batch, middleContext(load));
  const prefill = prefillStep(model, deployment, load.promptTokens);
  const tokenSeconds = decode.total + (prefill.total * batch) / load.outputTokens;
  return {
    ...{ decode, prefill },
    tokenLatencyMs: tokenSeconds * 1e3,
    firstTokenLatencyMs: (prefill.total + decode.total) * 1e3,
    requestsPerSecond: batch / (load.outputTokens * tokenSeconds),
  };
}

/** The largest batch up to `most` that keeps both latencies; 0 when one sequence alone does not. Latencies grow with batch. */
export function batchWithinLatency(
  model: PlanModel,
  deployment: Deployment,
  load: Load,
  most: number,
): number {
  const keeps = (batch: number) => {
    const times = serviceTimes(model, deployment, load, batch);
    return (
      times.tokenLatencyMs <= load.tokenLatencyMs && times.firstTokenLatencyMs <= load.firstTokenLatencyMs
    );
  };
  let [low, high] = [0, most];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (keeps(middle)) low = middle;
    else high = middle - 1;
  }
  return low;
}

function obstacleOf(input: PlanInput, deployment: Deployment, fits: Capacity, batch: number) {
  if (batch > 0) return null;
  if (fits.cacheBytes <= 0) return "weights";
  if (fits.tokens < requestTokens(input.load)) return "request";
  const alone = serviceTimes(input.model, deployment, input.load, 1);
  return alone.firstTokenLatencyMs > input.load.firstTokenLatencyMs ? "first token" : "token";
}

function serviceOf(input: PlanInput, deployment: Deployment, batch: number): Service {
  const { model, load, pricePerHour } = input;
  const times = serviceTimes(model, deployment, load, batch);
  const needed = Math.ceil(load.requestsPerSecond / (times.requestsPerSecond * load.utilisation));
  const copies = input.copies ?? needed;
  const gpus = copies * deployment.tensorParallel;
  const dollarsPerMonth = gpus * pricePerHour * HOURS_A_MONTH;
  const capacity = copies * times.requestsPerSecond;
  const tokensPerMonth =
    Math.min(load.requestsPerSecond, capacity) * load.outputTokens * HOURS_A_MONTH * 3600;
  return {
    ...{ batch, ...times, copies, gpus, dollarsPerMonth },
    tokensPerSecondPerGpu: (times.requestsPerSecond * load.outputTokens) / deployment.tensorParallel,
    utilisation: load.requestsPerSecond / capacity,
    dollarsPerMillionTokens: (dollarsPerMonth / tokensPerMonth) * 1e6,
  };
}

function planForm(input: PlanInput, form: CacheForm): FormPlan {
  const { model, load } = input;
  const deployment = { ...input.deployment, form };
  const capacity = capacityOf(model, deployment);
  const largestBatch = Math.floor(capacity.tokens / requestTokens(load));
  const batch = batchWithinLatency(model, deployment, load, largestBatch);
  return {
    ...{ form, capacity, largestBatch },
    bytesPerToken: cacheBytesPerToken(model, form, deployment.cacheDtype),
    largestContext: Math.min(capacity.tokens, model.maxContext),
    obstacle: obstacleOf(input, deployment, capacity, batch),
    service: batch === 0 ? null : serviceOf(input, deployment, batch),
  };
}

function checkInput({ model, deployment, load, pricePerHour, copies }: PlanInput): void {
  checkLoad(load);
  checkFinite("pricePerHour", pricePerHour, { min: 0 });
  checkInteger("tensorParallel", deployment.tensorParallel, { min: 1, max: 1024 });
  if (copies !== undefined) checkInteger("copies", copies, { min: 1 });
  const { heads } = model.attention;
  if (deployment.tensorParallel > heads) {
    throw new UserError(
      `Tensor parallelism divides heads and the model has ${heads}; give at most that instead of ${deployment.tensorParallel}.`,
    );
  }
  if (requestTokens(load) > model.maxContext) {
    throw new UserError(
      `A request of ${requestTokens(load)} tokens is longer than the model's context of ${model.maxContext}; shorten the prompt or the output.`,
    );
  }
}

/**
 * Plans `input` with a latent, a grouped-query and a full multi-head cache. Throws RangeError for rates, lengths and prices
 * that mean nothing, UserError for a load that the model was not made for.
 */
export function planDeployment(input: PlanInput): Plan {
  checkInput(input);
  return {
    totalWeights: totalWeights(input.model),
    activeWeights: activeWeights(input.model),
    forms: cacheForms.map((form) => planForm(input, form)),
  };
}
