import { readFileSync } from "node:fs";
import { createContext, runInContext } from "node:vm";
import { expect, it } from "vitest";
import { fakeServer } from "../../tests/fixtures/server-fixture.ts";

const html = readFileSync(new URL("./chat-page.html", import.meta.url), "utf8");
const script = /<script>([\s\S]*)<\/script>/.exec(html)![1]!;

/** As much of an element as the page's script uses. */
class Box {
  value: string | number = "";
  textContent: unknown = "";
  className = "";
  hidden = false;
  onsubmit: ((event: { preventDefault(): void }) => Promise<void>) | undefined;
  readonly children: Box[] = [];
  append(...children: Box[]): void {
    this.children.push(...children);
  }
  scrollIntoView(): void {}
  setAttribute(): void {}
}

/** Runs the page against a handler, without a browser. */
function openPage(fetchPath: (path: string, init?: RequestInit) => Promise<Response>) {
  const ids = [...html.matchAll(/ id="(\w+)"/g)].map(([, id]) => id!);
  const boxes = Object.fromEntries(ids.map((id) => [id, new Box()]));
  const polls: (() => void)[] = [];
  const page = createContext({
    document: { getElementById: (id: string) => boxes[id], createElement: () => new Box() },
    sessionStorage: { getItem: () => null, setItem: () => {} },
    setTimeout: (poll: () => void) => polls.push(poll),
    fetch: fetchPath,
    ...{ performance, AbortController, TextDecoderStream, Error },
  });
  runInContext(script, page);
  const send = async (text: string) => {
    boxes.prompt!.value = text;
    await boxes.form!.onsubmit!({ preventDefault: () => {} });
  };
  const log = () =>
    boxes.log!.children.map(({ children: [role, body] }) => [role!.textContent, body!.textContent]);
  return { boxes, polls, send, log };
}

it("sends the conversation, shows the answer as it streams and the figures of /stats", async () => {
  const { handler, engine } = fakeServer();
  const bodies: { messages: { role: string; content: string }[] }[] = [];
  const { boxes, polls, send, log } = openPage((path, init) => {
    if (typeof init?.body === "string") bodies.push(JSON.parse(init.body) as (typeof bodies)[0]);
    return handler.fetch(new Request(`http://localhost/${path}`, init));
  });
  boxes.maxTokens!.value = "8";
  await send("Hello");
  const [, [role, answer]] = log() as [unknown, [string, string]];
  expect(role).toBe("model");
  expect(answer.length).toBeGreaterThan(0);
  await send("And then?");
  expect(bodies[1]!.messages.slice(0, 3)).toEqual([
    { role: "user", content: "Hello" },
    { role: "assistant", content: answer },
    { role: "user", content: "And then?" },
  ]);
  while (polls.length === 0) await new Promise((done) => setImmediate(done));
  expect(boxes.model!.textContent).toBe("fake");
  expect(boxes.pages!.textContent).toBe(`0 of ${engine.statistics().pageCount} pages`);
});

it("shows why a request was refused, and asks for a key where one is wanted", async () => {
  const { handler } = fakeServer({ apiKeys: ["secret"] });
  const { boxes, send, log } = openPage((path, init) =>
    handler.fetch(new Request(`http://localhost/${path}`, init)),
  );
  boxes.maxTokens!.value = "8";
  boxes.keyRow!.hidden = true;
  await send("Hello");
  expect(log().at(-1)).toEqual(["error", expect.stringContaining("wants a key")]);
  expect(boxes.keyRow!.hidden).toBe(false);
});
