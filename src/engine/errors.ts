/** The prompt, or prompt and `maxTokens` together, do not fit the context. */
export class ContextLengthError extends RangeError {
  override readonly name = "ContextLengthError";
  readonly promptTokens: number;
  /** Tokens asked for; null when the request left it open. */
  readonly maxTokens: number | null;
  /** Tokens one sequence may have. */
  readonly maxContext: number;

  constructor(promptTokens: number, maxTokens: number | null, maxContext: number) {
    const output =
      maxTokens === null ? "leaves no room for output" : `with ${maxTokens} of output is too long`;
    super(`The prompt of ${promptTokens} tokens ${output}: a sequence may have ${maxContext} tokens.`);
    this.promptTokens = promptTokens;
    this.maxTokens = maxTokens;
    this.maxContext = maxContext;
  }
}

/** Too many sequences wait already; the same request may be accepted later. */
export class QueueFullError extends Error {
  override readonly name = "QueueFullError";
  /** Sequences that wait. */
  readonly waiting: number;

  constructor(waiting: number) {
    super(`The queue is full: ${waiting} sequences wait; try again later.`);
    this.waiting = waiting;
  }
}

/** The engine drains or is closed and takes no requests. */
export class EngineClosedError extends Error {
  override readonly name = "EngineClosedError";

  constructor() {
    super("The engine is shutting down and takes no more requests.");
  }
}

/** The step a request was in failed; `cause` is what the device or the request's own constraint threw. */
export class StepError extends Error {
  override readonly name = "StepError";
}
