import { describe, expect, it } from "vitest";
import { post, readEvents, scriptedServer } from "../../tests/fixtures/server-fixture.ts";

const weather = {
  type: "function",
  function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } },
};
const chat = (more: object = {}) => ({
  messages: [{ role: "user", content: "How is Verona?" }],
  tools: [weather],
  ...more,
});
const call = (city: string) =>
  `<tool_call>\n{"name": "weather", "arguments": {"city": "${city}"}}\n</tool_call>`;

interface Answer {
  readonly choices: {
    message: {
      content: string | null;
      tool_calls?: { id: string; function: { name: string; arguments: string } }[];
    };
    finish_reason: string;
  }[];
}

async function ask(text: string, more: object = {}) {
  const { handler, engine, model } = scriptedServer(text);
  const response = await handler.fetch(post("/v1/chat/completions", chat(more)));
  expect(response.status).toBe(200);
  const { choices } = (await response.json()) as Answer;
  const calls = choices[0]!.message.tool_calls?.map((one) => [one.function.name, one.function.arguments]);
  return { ...choices[0]!, calls, prompt: model.tokenizer.decode(Array.from(engine.request!.promptIds)) };
}

describe("calls in text", () => {
  it("content before, two calls, the blank line between them dropped", async () => {
    const answer = await ask(`Let me see.\n${call("Verona")}\n${call("Mantua")}`);
    expect(answer.calls).toEqual([
      ["weather", '{"city":"Verona"}'],
      ["weather", '{"city":"Mantua"}'],
    ]);
    expect(answer.message.content).toBe("Let me see.\n");
    expect(answer.finish_reason).toBe("tool_calls");
    expect(answer.prompt).toContain("tools: weather");
  });

  it("parallel_tool_calls false: the first only", async () => {
    const answer = await ask(call("Verona") + call("Mantua"), { parallel_tool_calls: false });
    expect(answer.calls).toEqual([["weather", '{"city":"Verona"}']]);
  });

  it("what is no call is text", async () => {
    const text = "a <tool_ b <tool_call>no JSON</tool_call> c <tool_call>{";
    const answer = await ask(text);
    expect(answer.calls).toBeUndefined();
    expect(answer.message.content).toBe(text);
    expect(answer.finish_reason).toBe("stop");
  });

  it("tool_choice none: the text as it is, and no tools in the prompt", async () => {
    const answer = await ask(call("Verona"), { tool_choice: "none" });
    expect(answer.message.content).toBe(call("Verona"));
    expect(answer.prompt).not.toContain("tools:");
  });

  it("a stream gives each call whole, numbered", async () => {
    const { handler } = scriptedServer(call("Verona") + call("Mantua"));
    const response = await handler.fetch(post("/v1/chat/completions", chat({ stream: true })));
    const events = await readEvents<{
      choices: {
        delta: { tool_calls?: { index: number; function: { arguments: string } }[] };
        finish_reason: string;
      }[];
    }>(response);
    const calls = events.flatMap(({ choices }) => choices[0]!.delta.tool_calls ?? []);
    expect(calls.map(({ index, function: f }) => [index, f.arguments])).toEqual([
      [0, '{"city":"Verona"}'],
      [1, '{"city":"Mantua"}'],
    ]);
    expect(events.at(-1)!.choices[0]!.finish_reason).toBe("tool_calls");
  });
});

describe("forced calls", () => {
  it("a named function: the text is its arguments, kept to its parameters", async () => {
    const tool_choice = { type: "function", function: { name: "weather" } };
    const answer = await ask('{"city": "Verona"}', { tool_choice });
    expect(answer.calls).toEqual([["weather", '{"city": "Verona"}']]);
    expect(answer.message.content).toBeNull();
  });

  it("required: a list of calls", async () => {
    const answer = await ask('[{"name": "weather", "parameters": {"city": "Verona"}}]', {
      tool_choice: "required",
    });
    expect(answer.calls).toEqual([["weather", '{"city":"Verona"}']]);
  });

  it("an unknown function, and a format beside it, are refused", async () => {
    const { handler } = scriptedServer("");
    const status = async (more: object) =>
      (await handler.fetch(post("/v1/chat/completions", chat(more)))).status;
    expect(await status({ tool_choice: { type: "function", function: { name: "other" } } })).toBe(400);
    expect(await status({ tool_choice: "required", response_format: { type: "json_object" } })).toBe(400);
  });

  it("the arguments of earlier calls reach the template as an object", async () => {
    const earlier = {
      id: "1",
      type: "function",
      function: { name: "weather", arguments: '{"city": "Verona"}' },
    };
    const messages = [
      { role: "user", content: "?" },
      { role: "assistant", content: null, tool_calls: [earlier] },
      { role: "tool", tool_call_id: "1", content: "sunny" },
    ];
    expect((await ask("Good.", { messages })).prompt).toContain('{"city": "Verona"}\ntool: sunny');
  });
});
