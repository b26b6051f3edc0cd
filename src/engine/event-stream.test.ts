import { expect, it } from "vitest";
import { EventStream } from "./event-stream.ts";
import type { FinishEvent, TokensEvent } from "./events.ts";

const tokens = (index: number, ...tokenIds: number[]): TokensEvent => {
  return { kind: "tokens", index, text: tokenIds.join(), tokenIds, logprobs: [] };
};
const usage = { promptTokens: 1, cachedTokens: 0, completionTokens: 1 };
const finish = (index: number): FinishEvent => ({ kind: "finish", index, reason: "stop", stop: null, usage });

function watched() {
  const heard: string[] = [];
  const stream = new EventStream(
    (index) => heard.push(`read ${index}`),
    () => heard.push("left"),
  );
  return { stream, heard };
}

it("a waiting reader gets each event, unread ones of one index are one", async () => {
  const { stream, heard } = watched();
  const waiting = stream.next();
  stream.push(tokens(0, 1));
  for (const event of [tokens(0, 2), tokens(1, 7), tokens(0, 3, 4), finish(0), tokens(1, 8)])
    stream.push(event);
  expect(await waiting).toEqual({ done: false, value: tokens(0, 1) });
  expect([stream.unreadTokens(0), stream.unreadTokens(1)]).toEqual([3, 2]);
  stream.end();
  const rest = [];
  for await (const event of stream) rest.push(event);
  expect(rest).toEqual([
    { ...tokens(0, 2, 3, 4), text: "23,4" },
    { ...tokens(1, 7, 8), text: "78" },
    finish(0),
  ]);
  expect(heard).toEqual(["read 0", "read 1"]);
  expect((await stream.next()).done).toBe(true);
});

it("an error rejects one read, drops what is unread, and ends", async () => {
  const { stream } = watched();
  stream.push(tokens(0, 1));
  stream.fail(new Error("lost"));
  stream.push(tokens(0, 2));
  stream.fail(new Error("again"));
  await expect(stream.next()).rejects.toThrow("lost");
  expect((await stream.next()).done).toBe(true);
});

it("an error with several reads under way rejects the first and ends the others", async () => {
  const { stream } = watched();
  const reads = Promise.allSettled([stream.next(), stream.next()]);
  stream.fail(new Error("lost"));
  expect((await reads).map(({ status }) => status)).toEqual(["rejected", "fulfilled"]);
});

it("leaving is heard of once, and not after the end", async () => {
  const left = watched();
  left.stream.push(tokens(0, 1));
  await left.stream.return();
  await left.stream.return();
  expect(left.heard).toEqual(["left"]);
  expect((await left.stream.next()).done).toBe(true);
  const ended = watched();
  ended.stream.end();
  await ended.stream.return();
  expect(ended.heard).toEqual([]);
});
