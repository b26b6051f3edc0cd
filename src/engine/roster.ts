import type { Completion } from "./completion.ts";
import type { Generation } from "./generation.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";
import type { SequenceTimings } from "./statistics.ts";
import type { EngineTotals } from "./totals.ts";

/** A sequence at work, and the request it belongs to. */
export interface RosterEntry {
  readonly generation: Generation;
  readonly completion: Completion;
}

/** All sequences at work. One that ends while a step is run leaves the scheduler when the step is over. */
export class Roster {
  readonly #scheduler: Scheduler;
  readonly #totals: EngineTotals;
  readonly #entries = new Map<Sequence, RosterEntry>();
  readonly #leaving = new Set<Sequence>();
  readonly #whenEmpty: (() => void)[] = [];
  #isStepping = false;

  constructor(scheduler: Scheduler, totals: EngineTotals) {
    this.#scheduler = scheduler;
    this.#totals = totals;
  }

  /** Takes the sequences of a request in. */
  add(generation: Generation): void {
    for (const completion of generation.completions) {
      this.#entries.set(completion.sequence, { generation, completion });
      this.#scheduler.add(completion.sequence);
    }
  }

  /** The entry of a sequence; undefined when it is not at work any more. */
  get(sequence: Sequence): RosterEntry | undefined {
    return this.#entries.get(sequence);
  }

  /** Ends all requests with an error. */
  failAll(error: Error, reason: "abort" | "error"): void {
    for (const { generation } of [...this.#entries.values()]) this.fail(generation, error, reason);
  }

  /** Ends a request with an error. */
  fail(generation: Generation, error: Error, reason: "abort" | "error"): void {
    generation.fail(error);
    this.leave(generation, reason);
  }

  /** Takes out those sequences of a request that did not finish. */
  leave(generation: Generation, reason: "abort" | "error"): void {
    for (const completion of generation.completions) this.retire(completion, reason);
  }

  /** Takes one sequence out; ignored when it is out already. */
  retire(completion: Completion, reason: SequenceTimings["reason"]): void {
    const { sequence } = completion;
    const generation = this.#entries.get(sequence)?.generation;
    if (generation === undefined || this.#leaving.has(sequence)) return;
    this.#totals.sequenceEnd(completion.timings(reason, performance.now()));
    if (this.#isStepping) this.#leaving.add(sequence);
    else this.#takeOut(sequence);
    const isAtWork = ({ sequence: other }: Completion) =>
      this.#entries.has(other) && !this.#leaving.has(other);
    if (!generation.completions.some(isAtWork)) this.#totals.requestEnd(generation.summary);
  }

  /** Runs part of a step during which no sequence may leave the scheduler. */
  async duringStep<Result>(run: () => Promise<Result>): Promise<Result> {
    this.#isStepping = true;
    try {
      return await run();
    } finally {
      this.#isStepping = false;
    }
  }

  /** Takes out the sequences that ended during the step. */
  dismiss(): void {
    for (const sequence of this.#leaving) this.#takeOut(sequence);
    this.#leaving.clear();
  }

  /** Resolves when no sequence is at work. */
  async empty(): Promise<void> {
    if (this.#entries.size > 0) await new Promise<void>((resolve) => this.#whenEmpty.push(resolve));
  }

  #takeOut(sequence: Sequence): void {
    this.#scheduler.remove(sequence);
    this.#entries.delete(sequence);
    if (this.#entries.size === 0) for (const resolve of this.#whenEmpty.splice(0)) resolve();
  }
}
