import type { GenerationEngine } from "../engine/engine-types.ts";
import type { ServerHandler } from "./handler.ts";
import type { ListeningServer } from "./listen.ts";

/** What {@link drainServer} ends. */
export interface RunningServer {
  readonly listening: ListeningServer;
  readonly handler: ServerHandler;
  readonly engine: Pick<GenerationEngine, "drain" | "close">;
}

/** Time for the last bytes of answers that are complete. */
const FLUSH_MS = 1000;

const after = (ms: number) => new Promise<"late">((resolve) => setTimeout(resolve, ms, "late").unref());

/**
 * Ends a server without cutting anybody short: no new connections, 503 for new requests on old ones, what is under way
 * goes on for up to `timeoutMs`. Resolves with whether all of it came to its end.
 */
export async function drainServer(
  { listening, handler, engine }: RunningServer,
  timeoutMs: number,
): Promise<boolean> {
  handler.beginDrain();
  const closed = listening.close();
  const outcome = await Promise.race([engine.drain(), after(timeoutMs)]);
  if (outcome === "late") await engine.close();
  await Promise.race([closed, after(FLUSH_MS)]);
  listening.cut();
  return outcome !== "late";
}
