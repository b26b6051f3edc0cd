import { DeviceLostError, errorMessage } from "../base/errors.ts";
import type { EngineOptions, GenerationEngine } from "./engine-types.ts";
import { EngineClosedError, QueueFullError, StepError } from "./errors.ts";
import type { GenerateEvent } from "./events.ts";
import { Generation } from "./generation.ts";
import { checkFit, type EngineLimits, resolveLimits } from "./limits.ts";
import { checkRequest, type GenerateRequest } from "./request.ts";
import { Roster, type RosterEntry } from "./roster.ts";
import { type DrawRules, runPlan } from "./run-plan.ts";
import type { Runner } from "./runner-types.ts";
import { Scheduler } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";
import type { EngineStatistics } from "./statistics.ts";
import { StepLoop } from "./step-loop.ts";
import type { StepDraws, StepPlan } from "./step-plan.ts";
import { EngineTotals } from "./totals.ts";

/**
 * Serves many requests over one paged cache. While there are any it takes steps, each schedule → run → postprocess, and
 * lets the event loop turn in between. The runner's pages are the engine's alone.
 */
export class Engine implements GenerationEngine {
  readonly maxContext: number;
  readonly #options: EngineOptions;
  readonly #limits: EngineLimits;
  readonly #eosTokenIds: ReadonlySet<number>;
  readonly #scheduler: Scheduler;
  readonly #totals: EngineTotals;
  readonly #roster: Roster;
  readonly #rules: DrawRules;
  readonly #loop = new StepLoop(() => this.#step());
  #runner: Runner;
  /** Whether the device was opened anew and no step has succeeded since. */
  #isReopened = false;
  #arrivals = 0;
  #isClosed = false;

  /** Throws TypeError or RangeError for limits of a wrong kind, or that the runner cannot serve. */
  constructor(options: EngineOptions) {
    this.#options = options;
    this.#runner = options.runner;
    this.#limits = resolveLimits(options);
    this.maxContext = this.#limits.maxContext;
    this.#eosTokenIds = new Set(options.eosTokenIds);
    this.#scheduler = new Scheduler(this.#limits);
    this.#totals = new EngineTotals(options.observer ?? {});
    const roster = new Roster(this.#scheduler, this.#totals);
    this.#roster = roster;
    this.#rules = {
      sampling: (sequence, outputIndex) => roster.get(sequence)!.completion.sampling(outputIndex),
      adjust: (sequence, outputIndex) => roster.get(sequence)!.completion.rules.adjust(outputIndex),
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
      onResume: () => this.#loop.wake(),
      onAbort: (aborted) => this.#roster.leave(aborted, "abort"),
    });
    this.#arrivals += checked.n;
    this.#roster.add(generation);
    this.#loop.wake();
    return generation.stream;
  }

  statistics(): EngineStatistics {
    const { allocator, reusablePages } = this.#scheduler.cache;
    const { pageCount, usedPages } = allocator;
    return { ...this.#scheduler.counts, pageCount, usedPages, reusablePages, ...this.#totals.read() };
  }

  async drain(): Promise<void> {
    this.#isClosed = true;
    await this.#roster.empty();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#roster.failAll(new EngineClosedError(), "abort");
    await this.#loop.idle();
  }

  /** Schedule → run → postprocess; false when there was nothing to do. */
  async #step(): Promise<boolean> {
    const begin = performance.now();
    const plan = this.#scheduler.schedule();
    const sequences = [...plan.decodes, ...plan.prefills].map(({ sequence }) => sequence);
    if (sequences.length === 0) return false;
    for (const sequence of sequences) this.#roster.get(sequence)!.completion.start(begin);
    const scheduled = performance.now();
    try {
      const draws = await this.#roster.duringStep(() => runPlan(this.#runner, plan, this.#rules));
      const ran = performance.now();
      this.#isReopened = false;
      this.#postprocess(plan, draws, ran);
      this.#totals.step(plan, [begin, scheduled, ran, performance.now()]);
    } catch (cause) {
      await this.#recover(sequences, cause);
    }
    this.#roster.dismiss();
    return true;
  }

  #postprocess(plan: StepPlan, draws: StepDraws, now: number): void {
    for (const { sequence, tokenIds } of this.#scheduler.settle(plan, draws)) {
      const entry = this.#roster.get(sequence);
      if (entry !== undefined && !entry.generation.isOver) this.#deliver(entry, tokenIds, now);
    }
  }

  /** Passes drawn tokens on; what goes wrong with them ends their own request alone. */
  #deliver({ generation, completion }: RosterEntry, drawn: readonly number[], now: number): void {
    try {
      const output = completion.accept(drawn);
      if (completion.rules.failure !== null) throw completion.rules.failure;
      generation.push(completion, output);
      this.#totals.output(completion, output.tokens.tokenIds.length, now);
      if (output.finish !== null) this.#roster.retire(completion, output.finish.reason);
    } catch (cause) {
      const error = new StepError(`The request could not go on: ${errorMessage(cause)}`, { cause });
      this.#roster.fail(generation, error, "error");
    }
  }

  /** After the loss of the device, goes on with another one where there is a way to open it; else the step has failed. */
  async #recover(sequences: readonly Sequence[], cause: unknown): Promise<void> {
    const { reopen } = this.#options;
    if (!(cause instanceof DeviceLostError) || reopen === undefined || this.#isReopened) {
      this.#fail(sequences, cause);
      return;
    }
    try {
      this.#runner = await this.#roster.duringStep(reopen);
      this.#isReopened = true;
      this.#totals.failedStep();
      this.#scheduler.startOver();
    } catch (again) {
      this.#fail(sequences, again);
    }
  }

  /** Ends the requests of a step that failed; pages may hold anything now, so no prompt is taken from them. */
  #fail(sequences: readonly Sequence[], cause: unknown): void {
    this.#totals.failedStep();
    this.#scheduler.cache.forgetPublished();
    const error = new StepError(`The step failed: ${errorMessage(cause)}`, { cause });
    for (const sequence of sequences) {
      const entry = this.#roster.get(sequence);
      if (entry !== undefined) this.#roster.fail(entry.generation, error, "error");
    }
  }
}
