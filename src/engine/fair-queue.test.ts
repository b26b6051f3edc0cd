import { expect, it } from "vitest";
import { createRandom } from "../base/random.ts";
import { FairQueue, type QueueItem } from "./fair-queue.ts";

const item = (client: string, order: number, priority = 0): QueueItem => ({ client, order, priority });

it("serves the client with the fewest tokens, in order of arrival within it and among equals", () => {
  const queue = new FairQueue<QueueItem>();
  for (let order = 0; order < 4; order++) queue.push(item("many", order));
  queue.push(item("few", 4));
  const served: string[] = [];
  for (let next = queue.shift(); next !== null; next = queue.shift()) {
    served.push(`${next.client} ${next.order}`);
    queue.charge(next.client, 10);
  }
  expect(served).toEqual(["many 0", "few 4", "many 1", "many 2", "many 3"]);
});

it("a client that was away gathers no credit", () => {
  const queue = new FairQueue<QueueItem>();
  for (let order = 0; order < 6; order++) queue.push(item("steady", order));
  for (let i = 0; i < 3; i++) queue.charge(queue.shift()!.client, 100);
  for (let order = 6; order < 9; order++) queue.push(item("late", order));
  const clients: string[] = [];
  for (let i = 0; i < 5; i++) {
    const { client } = queue.shift()!;
    clients.push(client);
    queue.charge(client, 100);
  }
  expect(clients).toEqual(["late", "steady", "late", "steady", "late"]);
});

it("priority comes before fairness, and a returning item takes its old place", () => {
  const queue = new FairQueue<QueueItem>();
  const [first, second, urgent] = [item("a", 0), item("a", 1), item("b", 2, -1)];
  queue.charge("b", 1000);
  for (const one of [second, urgent, first]) queue.push(one);
  expect([queue.shift(), queue.shift(), queue.shift()]).toEqual([urgent, first, second]);
  expect(queue.shift()).toBeNull();
});

it("10,000 random pushes, removals and shifts: nothing is lost, thousands of clients are forgotten", () => {
  const random = createRandom(4);
  const queue = new FairQueue<QueueItem>();
  const held = new Set<QueueItem>();
  for (let order = 0; order < 10_000; order++) {
    const pushed = item(`client ${random.integer(3000)}`, order, random.integer(3));
    queue.push(pushed);
    held.add(pushed);
    if (random.integer(3) === 0) {
      const gone = [...held][random.integer(held.size)]!;
      expect(queue.remove(gone)).toBe(true);
      expect(queue.remove(gone)).toBe(false);
      held.delete(gone);
    }
    if (random.integer(2) === 0 && held.size > 0) {
      const next = queue.shift()!;
      expect(held.delete(next)).toBe(true);
      expect([...held].every(({ priority }) => priority >= next.priority)).toBe(true);
    }
    expect(queue.size).toBe(held.size);
  }
});
