import type { FromWorker, ToWorker } from "./protocol.ts";

/** What is done with each kind of message of the worker. */
export type Handlers = {
  readonly [Kind in FromWorker["kind"]]: (message: Extract<FromWorker, { kind: Kind }>) => void;
};

/** The page's end of the engine's worker. */
export class EngineClient {
  readonly #worker = new Worker(new URL("./engine-worker.ts", import.meta.url), { type: "module" });

  constructor(handlers: Handlers) {
    this.#worker.addEventListener("message", ({ data }: MessageEvent<FromWorker>) => {
      (handlers[data.kind] as (message: FromWorker) => void)(data);
    });
    this.#worker.addEventListener("error", ({ message }) => {
      const reason = message || "its code could not be loaded";
      handlers.failed({
        kind: "failed",
        during: "open",
        message: `The engine does not run here: ${reason}.`,
      });
    });
  }

  send(message: ToWorker): void {
    this.#worker.postMessage(message);
  }
}
