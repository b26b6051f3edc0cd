import type { Completion } from "./completion.ts";
import type {
  EngineObserver,
  EngineStatistics,
  RequestSummary,
  SequenceTimings,
  StepTimings,
} from "./statistics.ts";
import type { StepPlan } from "./step-plan.ts";

type Totals = Pick<
  EngineStatistics,
  | "steps"
  | "failedSteps"
  | "prefillTokens"
  | "promptTokens"
  | "cachedTokens"
  | "completionTokens"
  | "pageCopies"
  | "finished"
>;

/** Counts what an engine did, and tells its observer. */
export class EngineTotals {
  readonly #observer: EngineObserver;
  readonly #finished = { stop: 0, length: 0, abort: 0, error: 0 };
  readonly #totals = {
    steps: 0,
    failedSteps: 0,
    prefillTokens: 0,
    promptTokens: 0,
    cachedTokens: 0,
    completionTokens: 0,
    pageCopies: 0,
  };

  constructor(observer: EngineObserver) {
    this.#observer = observer;
  }

  /** Everything counted so far. */
  read(): Totals {
    return { ...this.#totals, finished: { ...this.#finished } };
  }

  /** Counts a step that ran; `times` are milliseconds at its start, after schedule, after run and at its end. */
  step(plan: StepPlan, times: readonly [number, number, number, number]): void {
    const [begin, scheduled, ran, end] = times;
    const timings: StepTimings = {
      decodeRows: plan.decodes.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0),
      prefillTokens: plan.prefills.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0),
      scheduleSeconds: (scheduled - begin) / 1000,
      runSeconds: (ran - scheduled) / 1000,
      postprocessSeconds: (end - ran) / 1000,
    };
    this.#totals.steps++;
    this.#totals.prefillTokens += timings.prefillTokens;
    this.#totals.pageCopies += plan.copies.length;
    this.#observer.stepEnd?.(timings);
  }

  /** Counts a step that failed. */
  failedStep(): void {
    this.#totals.failedSteps++;
  }

  /** Counts `tokens` tokens that a sequence got at `now`, milliseconds. */
  output(completion: Completion, tokens: number, now: number): void {
    const { isFirst, seconds } = completion.noteOutput(now);
    this.#totals.completionTokens += tokens;
    if (!isFirst) {
      this.#observer.nextTokens?.(seconds, tokens);
      return;
    }
    this.#totals.promptTokens += completion.sequence.promptIds.length;
    this.#totals.cachedTokens += completion.sequence.cachedTokens;
    this.#observer.firstToken?.(seconds);
  }

  /** Counts the end of a sequence. */
  sequenceEnd(timings: SequenceTimings): void {
    this.#finished[timings.reason]++;
    this.#observer.sequenceEnd?.(timings);
  }

  /** Counts the end of a request's last sequence. */
  requestEnd(summary: RequestSummary): void {
    this.#observer.requestEnd?.(summary);
  }
}
