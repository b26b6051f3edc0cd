import { PagedLatentCache } from "../cache/paged-latent-cache.ts";
import { FairQueue } from "./fair-queue.ts";
import { planStep, type StepLimits } from "./plan-step.ts";
import { comparePrecedence, type Sequence } from "./sequence.ts";
import { settleStep } from "./settle-step.ts";
import type { SequenceTokens, StepDraws, StepPlan } from "./step-plan.ts";

/** Sizes a scheduler works with. */
export interface SchedulerOptions extends StepLimits {
  readonly pageCount: number;
  readonly pageSize: number;
  /** Sequences in the batch, at most `maxDecodeRows`. */
  readonly maxRunning: number;
}

/** Share of the pages kept free when a sequence joins others, so that those can grow for a while. */
const SPARE_PAGES = 1 / 64;

/**
 * Decides what each step computes: which sequences are in the batch, which pages they get, who must give way. Plain
 * integers; it knows no device. A sequence whose pages are taken starts over: its prompt is prefilled and its output
 * decoded again, each as it was the first time, so the same bits come out.
 */
export class Scheduler {
  readonly cache: PagedLatentCache;
  readonly #options: SchedulerOptions;
  readonly #queue = new FairQueue<Sequence>();
  /** By precedence: the last one gives way first. */
  readonly #running: Sequence[] = [];
  readonly #paused = new Set<Sequence>();
  /** Sequences outside the batch that still hold pages. */
  readonly #idleHolders = new Set<Sequence>();
  #preemptions = 0;
  #drafts = 0;
  #draftedTokens = 0;
  #acceptedTokens = 0;

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.cache = new PagedLatentCache(options.pageCount, options.pageSize);
  }

  /** Numbers of sequences now, and totals. */
  get counts() {
    return {
      running: this.#running.length,
      waiting: this.#queue.size,
      paused: this.#paused.size,
      preemptions: this.#preemptions,
      drafts: this.#drafts,
      draftedTokens: this.#draftedTokens,
      acceptedTokens: this.#acceptedTokens,
    };
  }

  /** Queues a sequence. */
  add(sequence: Sequence): void {
    this.#queue.push(sequence);
  }

  /** Takes a sequence out, wherever it stands, and gives its pages back. Not between `schedule` and `settle`. */
  remove(sequence: Sequence): void {
    if (sequence.status === "running") this.#running.splice(this.#running.indexOf(sequence), 1);
    if (sequence.status === "waiting") this.#queue.remove(sequence);
    this.#paused.delete(sequence);
    this.#dropPages(sequence);
    sequence.status = "ended";
  }

  /** Lets every sequence start over: what the cache held is gone. Not between `schedule` and `settle` of a step that goes on. */
  startOver(): void {
    for (const sequence of [...this.#idleHolders, ...this.#running]) this.#preempt(sequence);
    this.cache.forgetPublished();
  }

  /** Plans the next step; a plan without work means that nothing can be done until something changes. */
  schedule(): StepPlan {
    this.#pauseAndResume();
    this.#growRunning();
    while (this.#admitNext());
    return planStep(this.#running, this.cache, this.#options);
  }

  /**
   * Takes in what a step drew and returns the tokens it adds to its sequences, decodes first; the caller appends them,
   * up to where a sequence ends.
   */
  settle(plan: StepPlan, draws: StepDraws): readonly SequenceTokens[] {
    for (const { sequence } of plan.prefills) {
      if (this.#options.prefixReuse) this.cache.publish(sequence.cached!, sequence.promptIds);
    }
    const { added, drafts, drafted, accepted } = settleStep(plan, draws, this.cache);
    for (const { sequence, tokenIds } of added) this.#queue.charge(sequence.client, tokenIds.length);
    this.#drafts += drafts;
    this.#draftedTokens += drafted;
    this.#acceptedTokens += accepted;
    return added;
  }

  /** Sequences whose output nobody reads leave the batch, with their pages; those read again queue up. */
  #pauseAndResume(): void {
    for (const sequence of this.#running.filter(({ held }) => held)) {
      this.#running.splice(this.#running.indexOf(sequence), 1);
      sequence.status = "paused";
      this.#paused.add(sequence);
      this.#idleHolders.add(sequence);
    }
    for (const sequence of this.#paused) {
      if (sequence.held) continue;
      this.#paused.delete(sequence);
      sequence.status = "waiting";
      this.#queue.push(sequence);
    }
  }

  /** Gives every sequence of the batch the pages for its next tokens, the foremost first. */
  #growRunning(): void {
    for (let i = 0; i < this.#running.length; i++) {
      const sequence = this.#running[i]!;
      while (sequence.cached !== null && !this.cache.reserve(sequence.cached, sequence.pending)) {
        this.#preempt(this.#victim()!);
      }
    }
  }

  /** Takes the next sequence of the queue into the batch; false when none waits or there is no room. */
  #admitNext(): boolean {
    const next = this.#queue.peek();
    const isFull = this.#running.length === this.#options.maxRunning;
    if (next === null || (isFull && !yieldsTo(this.#running.at(-1)!, next))) return false;
    this.#idleHolders.delete(next);
    next.cached ??= this.cache.create();
    const before = next.cached.length;
    if (this.#options.prefixReuse && next.isPrefilling) {
      this.cache.reusePages(next.cached, next.promptIds, next.promptIds.length - 1);
    }
    if (!this.#makeRoom(next)) {
      this.#dropPages(next);
      return false;
    }
    if (this.#running.length === this.#options.maxRunning) this.#preempt(this.#running.at(-1)!);
    this.#queue.shift();
    this.#join(next, next.cached.length - before);
    return true;
  }

  /** Reserves the pages for all tokens of a sequence that is to join; false when those it may displace hold too few. */
  #makeRoom(next: Sequence): boolean {
    const { allocator } = this.cache;
    for (;;) {
      const spare = this.#running.length === 0 ? 0 : Math.ceil(allocator.pageCount * SPARE_PAGES);
      const needed = this.cache.pagesNeeded(next.cached!, next.pending);
      if (needed + spare <= allocator.freePages) return this.cache.reserve(next.cached!, next.pending);
      const victim = this.#victim();
      if (victim === null || !yieldsTo(victim, next)) return false;
      this.#preempt(victim);
    }
  }

  #join(next: Sequence, reused: number): void {
    let at = this.#running.length;
    while (at > 0 && comparePrecedence(next, this.#running[at - 1]!) < 0) at--;
    this.#running.splice(at, 0, next);
    next.status = "running";
    if (next.preemptions > 0 || next.outputLength > 0) return;
    next.cachedTokens += reused;
    this.#queue.charge(next.client, next.pending);
  }

  /** Who gives way first: whoever holds pages outside the batch, then the last of the batch. */
  #victim(): Sequence | null {
    for (const sequence of this.#idleHolders) return sequence;
    return this.#running.at(-1) ?? null;
  }

  #preempt(sequence: Sequence): void {
    this.#dropPages(sequence);
    sequence.preemptions++;
    this.#preemptions++;
    if (sequence.status !== "running") return;
    this.#running.splice(this.#running.indexOf(sequence), 1);
    sequence.status = "waiting";
    this.#queue.push(sequence);
  }

  #dropPages(sequence: Sequence): void {
    this.#idleHolders.delete(sequence);
    if (sequence.cached !== null) this.cache.free(sequence.cached);
    sequence.cached = null;
  }
}

function yieldsTo(holder: Sequence, next: Sequence): boolean {
  return holder.status !== "running" || holder.priority > next.priority;
}
