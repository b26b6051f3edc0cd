import { nextTurn } from "./next-turn.ts";

/** Takes steps as long as they find something to do, one turn of the event loop apart, and sleeps otherwise. */
export class StepLoop {
  readonly #step: () => Promise<boolean>;
  #running: Promise<void> | null = null;
  #hasNews = false;

  /** `step` resolves with false when there was nothing to do; it must not reject. */
  constructor(step: () => Promise<boolean>) {
    this.#step = step;
  }

  /** Says that there may be something to do; the next step begins in a later turn, so news of one turn come together. */
  wake(): void {
    this.#hasNews = true;
    this.#running ??= this.#run();
  }

  /** Resolves when no step is under way and none is due. */
  async idle(): Promise<void> {
    await this.#running;
  }

  async #run(): Promise<void> {
    let hasWorked = false;
    try {
      do {
        this.#hasNews = false;
        await nextTurn();
        hasWorked = await this.#step();
      } while (hasWorked || this.#hasNews);
    } finally {
      this.#running = null;
    }
  }
}
