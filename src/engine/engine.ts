import { errorMessage } from "../base/errors.ts";
import type { Completion } from "./completion.ts";
import type { EngineOptions, GenerationEngine } from "./engine-types.ts";
import { EngineClosedError, QueueFullError, StepError } from "./errors.ts";
import type { GenerateEvent } from "./events.ts";
import { Generation } from "./generation.ts";
import { checkFit, type EngineLimits, resolveLimits } from "./limits.ts";
import { nextTurn } from "./next-turn.ts";
import { checkRequest, type GenerateRequest } from "./request.ts";
import { type DrawRules, runPlan } from "./run-plan.ts";
import { Scheduler } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";
import type { EngineStatistics, SequenceTimings } from "./statistics.ts";
import type { StepDraws, StepPlan } from "./step-plan.ts";
import { EngineTotals } from "./totals.ts";

/** A sequence at work, and the request it belongs to. */
interface Active {
  readonly generation: Generation;
  readonly completion: Completion;
}

/**
 * Serves many requests over one paged cache. While there are any it takes steps, each schedule → run → postprocess, and
 * lets the event loop turn in between.
 */
export class Engine implements GenerationEngine {
  readonly maxContext: number;
  readonly #options: EngineOptions;
  readonly #limits: EngineLimits;
  readonly #scheduler: Scheduler;
  readonly #totals: EngineTotals;
  readonly #rules: DrawRules;
  readonly #active = new Map<Sequence, Active>();
  readonly #eosTokenIds: ReadonlySet<number>;
  /** Sequences to take out once the step under way is over. */
  readonly #leaving = new Set<Sequence>();
  #loop: Promise<void> | null = null;
  #isStepping = false;
  #hasNews = false;
  #arrivals = 0;
  #isClosed = false;
  #drained: (() => void)[] = [];

  /** Throws RangeError for limits the runner cannot serve. */
  constructor(options: EngineOptions) {
    this.#options = options;
    this.#limits = resolveLimits(options);
    this.maxContext = this.#limits.maxContext;
    this.#scheduler = new Scheduler(this.#limits);
    this.#totals = new EngineTotals(options.observer ?? {});
    this.#eosTokenIds = new Set(options.eosTokenIds);
    this.#rules = {
      sampling: (sequence, outputIndex) => this.#active.get(sequence)!.completion.sampling(outputIndex),
      adjust: (sequence, outputIndex) => this.#active.get(sequence)!.completion.rules.adjust(outputIndex),
    };
  }

  generate(request: GenerateRequest): AsyncIterableIterator<GenerateEvent> {
    if (this.#isClosed) throw new EngineClosedError();
    const checked = checkRequest(request, this.#options.runner.vocabSize);
    checked.signal?.throwIfAborted();
    checkFit(checked, this.#options, this.maxContext);
    const { running, waiting } = this.#scheduler.counts;
    const places = this.#limits.maxWaiting + this.#limits.maxRunning - running - waiting;
    if (checked.n > places) throw new QueueFullError(waiting);
    const generation = new Generation(checked, {
      tokenizer: this.#options.tokenizer,
      eosTokenIds: this.#eosTokenIds,
      maxContext: this.maxContext,
      maxUnreadTokens: this.#limits.maxUnreadTokens,
      firstOrder: this.#arrivals,
      now: performance.now(),
      onResume: () => this.#wake(),
      onAbort: (aborted) => this.#end(aborted, "abort"),
    });
    this.#arrivals += checked.n;
    for (const completion of generation.completions) {
      this.#active.set(completion.sequence, { generation, completion });
      this.#scheduler.add(completion.sequence);
    }
    this.#wake();
    return generation.stream;
  }

  statistics(): EngineStatistics {
    const { allocator, reusablePages } = this.#scheduler.cache;
    const { pageCount, usedPages } = allocator;
    return { ...this.#scheduler.counts, pageCount, usedPages, reusablePages, ...this.#totals.read() };
  }

  async drain(): Promise<void> {
    this.#isClosed = true;
    if (this.#active.size > 0) await new Promise<void>((resolve) => this.#drained.push(resolve));
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const { generation } of [...this.#active.values()]) {
      generation.fail(new EngineClosedError());
      this.#end(generation, "abort");
    }
    await this.#loop;
  }

  #wake(): void {
    this.#hasNews = true;
    this.#loop ??= this.#run();
  }

  async #run(): Promise<void> {
    let hasWorked = false;
    do {
      this.#hasNews = false;
      await nextTurn();
      hasWorked = await this.#step();
    } while (hasWorked || this.#hasNews);
    this.#loop = null;
  }

  /** Schedule → run → postprocess; false when there was nothing to do. */
  async #step(): Promise<boolean> {
    const begin = performance.now();
    const plan = this.#scheduler.schedule();
    const sequences = [...plan.decodes, ...plan.prefills].map(({ sequence }) => sequence);
    if (sequences.length === 0) return false;
    for (const sequence of sequences) this.#active.get(sequence)!.completion.start(begin);
    const scheduled = performance.now();
    const result = await this.#runSafely(plan);
    const ran = performance.now();
    if ("draws" in result) this.#postprocess(plan, result.draws, ran);
    else this.#fail(sequences, result.error);
    for (const sequence of this.#leaving) this.#takeOut(sequence);
    this.#leaving.clear();
    if ("draws" in result) this.#totals.step(plan, [begin, scheduled, ran, performance.now()]);
    return true;
  }

  async #runSafely(plan: StepPlan): Promise<{ draws: StepDraws } | { error: unknown }> {
    this.#isStepping = true;
    try {
      return { draws: await runPlan(this.#options.runner, plan, this.#rules) };
    } catch (error) {
      return { error };
    } finally {
      this.#isStepping = false;
    }
  }

  #postprocess(plan: StepPlan, draws: StepDraws, now: number): void {
    for (const { sequence, tokenIds } of this.#scheduler.settle(plan, draws)) {
      const active = this.#active.get(sequence);
      if (active !== undefined && !active.generation.isOver) this.#deliver(active, tokenIds, now);
    }
  }

  /** Passes drawn tokens on; what goes wrong with them ends their own request alone. */
  #deliver({ generation, completion }: Active, drawn: readonly number[], now: number): void {
    try {
      const output = completion.accept(drawn);
      if (completion.rules.failure !== null) throw completion.rules.failure;
      generation.push(completion, output);
      this.#totals.output(completion, output.tokens.tokenIds.length, now);
      if (output.finish !== null) this.#retire(completion, output.finish.reason);
    } catch (cause) {
      generation.fail(new StepError(`The request could not go on: ${errorMessage(cause)}`, { cause }));
      this.#end(generation, "error");
    }
  }

  /** Ends the requests of a step that failed; pages may hold anything now, so no prompt is taken from them. */
  #fail(sequences: readonly Sequence[], cause: unknown): void {
    this.#totals.failedStep();
    this.#scheduler.cache.forgetPublished();
    for (const sequence of sequences) {
      const { generation } = this.#active.get(sequence) ?? {};
      if (generation === undefined) continue;
      generation.fail(new StepError(`The step failed: ${errorMessage(cause)}`, { cause }));
      this.#end(generation, "error");
    }
  }

  /** Takes all sequences of a request out that did not finish; those of a step under way leave when it is over. */
  #end(generation: Generation, reason: "abort" | "error"): void {
    for (const completion of generation.completions) {
      const { sequence } = completion;
      if (this.#active.has(sequence) && !this.#leaving.has(sequence)) this.#retire(completion, reason);
    }
  }

  #retire(completion: Completion, reason: SequenceTimings["reason"]): void {
    this.#totals.sequenceEnd(completion.timings(reason, performance.now()));
    if (this.#isStepping) this.#leaving.add(completion.sequence);
    else this.#takeOut(completion.sequence);
  }

  #takeOut(sequence: Sequence): void {
    this.#scheduler.remove(sequence);
    this.#active.delete(sequence);
    if (this.#active.size === 0) for (const resolve of this.#drained.splice(0)) resolve();
  }
}
