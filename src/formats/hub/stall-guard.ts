/** Aborts a request that has gone quiet. */
export interface StallGuard {
  /** Aborted by the guard, or by the signal that it was started with. */
  readonly signal: AbortSignal;
  /** Something came: the time starts anew. */
  touch(): void;
  /** Ends the guard. */
  stop(): void;
}

/** A {@link StallGuard} that aborts `seconds` after the last touch, or when `outer` aborts. */
export function startStallGuard(seconds: number, outer: AbortSignal | undefined): StallGuard {
  const controller = new AbortController();
  const giveUp = () => controller.abort(new Error(`no byte came for ${seconds} seconds`));
  const timer = setTimeout(giveUp, seconds * 1000);
  return {
    signal: outer === undefined ? controller.signal : AbortSignal.any([controller.signal, outer]),
    touch: () => void timer.refresh(),
    stop: () => clearTimeout(timer),
  };
}
