import type { GenerateEvent, TokensEvent } from "./events.ts";

interface Reader {
  resolve(result: IteratorResult<GenerateEvent>): void;
  reject(error: unknown): void;
}

/** Tokens of one index that wait to be read; more are added to it. */
interface UnreadTokens extends TokensEvent {
  text: string;
  readonly tokenIds: number[];
  readonly logprobs: TokensEvent["logprobs"][number][];
}

/**
 * Events from the engine to whoever reads them. Tokens of one index that are not read yet are one event, so a slow
 * reader costs no more memory than its output.
 */
export class EventStream implements AsyncIterableIterator<GenerateEvent> {
  readonly #onRead: (index: number) => void;
  readonly #onLeave: () => void;
  readonly #events: GenerateEvent[] = [];
  readonly #unread = new Map<number, UnreadTokens>();
  readonly #readers: Reader[] = [];
  #end: { readonly error: unknown } | "ended" | null = null;

  /** `onRead` hears of tokens that were taken, by index; `onLeave` of a reader who leaves before the end. */
  constructor(onRead: (index: number) => void, onLeave: () => void) {
    this.#onRead = onRead;
    this.#onLeave = onLeave;
  }

  /** Tokens of one index that nobody has read. */
  unreadTokens(index: number): number {
    return this.#unread.get(index)?.tokenIds.length ?? 0;
  }

  /** Adds an event; ignored after the end. */
  push(event: GenerateEvent): void {
    if (this.#end !== null) return;
    const reader = this.#readers.shift();
    if (reader !== undefined) reader.resolve({ done: false, value: event });
    else this.#keep(event);
  }

  /** Ends the events: what is unread can still be read. */
  end(): void {
    this.#end ??= "ended";
    for (const reader of this.#readers.splice(0)) reader.resolve({ done: true, value: undefined });
  }

  /** Ends the events with an error, which the next read rejects with; what is unread is dropped. */
  fail(error: unknown): void {
    if (this.#end !== null) return;
    this.#dropUnread();
    const [reader, ...others] = this.#readers.splice(0);
    this.#end = reader === undefined ? { error } : "ended";
    reader?.reject(error);
    for (const other of others) other.resolve({ done: true, value: undefined });
  }

  next(): Promise<IteratorResult<GenerateEvent>> {
    const event = this.#events.shift();
    if (event?.kind === "tokens") {
      this.#unread.delete(event.index);
      this.#onRead(event.index);
    }
    if (event !== undefined) return Promise.resolve({ done: false, value: event });
    const end = this.#end;
    if (end === null) return new Promise((resolve, reject) => this.#readers.push({ resolve, reject }));
    this.#end = "ended";
    if (end === "ended") return Promise.resolve({ done: true, value: undefined });
    return Promise.reject(end.error);
  }

  return(): Promise<IteratorResult<GenerateEvent>> {
    const left = this.#end === null;
    this.#dropUnread();
    this.end();
    this.#end = "ended";
    if (left) this.#onLeave();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #keep(event: GenerateEvent): void {
    const unread = this.#unread.get(event.index);
    if (event.kind === "finish") {
      this.#events.push(event);
    } else if (unread === undefined) {
      const kept = { ...event, tokenIds: [...event.tokenIds], logprobs: [...event.logprobs] };
      this.#unread.set(event.index, kept);
      this.#events.push(kept);
    } else {
      unread.text += event.text;
      unread.tokenIds.push(...event.tokenIds);
      unread.logprobs.push(...event.logprobs);
    }
  }

  #dropUnread(): void {
    this.#events.length = 0;
    this.#unread.clear();
  }
}
