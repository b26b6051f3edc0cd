/**
 * Gives the event loop a turn, in which Ctrl-C arrives: a device that blocks while it computes gives it none. Rejects with the reason
 * of `signal` once that is aborted. It belongs between what is timed.
 */
export async function pause(signal: AbortSignal | undefined): Promise<void> {
  await new Promise<void>((resolve) => setImmediate(resolve));
  signal?.throwIfAborted();
}
