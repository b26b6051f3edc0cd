import { comparePrecedence } from "./sequence.ts";

/** What a queue needs to know of its items. */
export interface QueueItem {
  readonly client: string;
  readonly priority: number;
  readonly order: number;
}

interface Client<Item> {
  /** By priority, then arrival. */
  readonly waiting: Item[];
  /** Tokens computed for it, lifted to the level of the others when it comes back after a pause. */
  served: number;
}

/** Clients remembered though nothing of theirs waits. */
const MAX_CLIENTS = 1024;

/**
 * A queue that serves clients alike, by virtual token counters (Sheng et al. 2024, "Fairness in Serving Large Language
 * Models"): of the most urgent items, the client with the fewest tokens served comes first. A client that was away
 * gathers no credit meanwhile.
 */
export class FairQueue<Item extends QueueItem> {
  readonly #clients = new Map<string, Client<Item>>();
  #level = 0;
  #size = 0;

  /** Items that wait. */
  get size(): number {
    return this.#size;
  }

  /** Adds an item at the place of its priority and arrival among its client's own. */
  push(item: Item): void {
    const client = this.#client(item.client);
    if (client.waiting.length === 0) client.served = Math.max(client.served, this.#level);
    let at = client.waiting.length;
    while (at > 0 && comparePrecedence(item, client.waiting[at - 1]!) < 0) at--;
    client.waiting.splice(at, 0, item);
    this.#size++;
  }

  /** The item to serve next, or null when none waits. */
  peek(): Item | null {
    return this.#next()?.waiting[0] ?? null;
  }

  /** Takes the item of `peek` out. */
  shift(): Item | null {
    const client = this.#next();
    if (client === null) return null;
    this.#level = Math.max(this.#level, client.served);
    this.#size--;
    return client.waiting.shift()!;
  }

  /** Takes an item out, wherever it stands; false when it does not wait. */
  remove(item: Item): boolean {
    const waiting = this.#clients.get(item.client)?.waiting ?? [];
    const at = waiting.indexOf(item);
    if (at < 0) return false;
    waiting.splice(at, 1);
    this.#size--;
    return true;
  }

  /** Counts `tokens` tokens as served to a client. */
  charge(client: string, tokens: number): void {
    this.#client(client).served += tokens;
  }

  #next(): Client<Item> | null {
    let best: Client<Item> | null = null;
    for (const client of this.#clients.values()) {
      if (client.waiting.length > 0 && (best === null || goesBefore(client, best))) best = client;
    }
    return best;
  }

  #client(name: string): Client<Item> {
    const known = this.#clients.get(name);
    if (known !== undefined) return known;
    if (this.#clients.size >= MAX_CLIENTS) this.#forgetIdle();
    const client = { waiting: [], served: this.#level };
    this.#clients.set(name, client);
    return client;
  }

  #forgetIdle(): void {
    for (const [name, { waiting }] of this.#clients) if (waiting.length === 0) this.#clients.delete(name);
  }
}

function goesBefore<Item extends QueueItem>(a: Client<Item>, b: Client<Item>): boolean {
  const [first, second] = [a.waiting[0]!, b.waiting[0]!];
  return (first.priority - second.priority || a.served - b.served || first.order - second.order) < 0;
}
