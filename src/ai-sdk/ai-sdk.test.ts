import { generateText, NoObjectGeneratedError, Output, streamText, tool } from "ai";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { fakeServer, scriptedServer } from "../../tests/fixtures/server-fixture.ts";
import { FlashmlaLanguageModel } from "./language-model.ts";

const scripted = (text: string) => {
  const { model, engine } = scriptedServer(text);
  return { model: new FlashmlaLanguageModel(model), engine, tokenizer: model.tokenizer };
};

describe("the AI SDK", () => {
  it("generateText: text, usage, finish reason", async () => {
    const { model, engine, tokenizer } = scripted("Good morrow!");
    const result = await generateText({ model, system: "Be brief.", prompt: "Hello", topK: 5, seed: 3 });
    expect(result.text).toBe("Good morrow!");
    expect(result.finishReason).toBe("stop");
    expect(result.usage).toMatchObject({ inputTokens: engine.request!.promptIds.length, outputTokens: 7 });
    expect(engine.request).toMatchObject({ topK: 5, seed: 3 });
    expect(tokenizer.decode(Array.from(engine.request!.promptIds))).toBe(
      "system: Be brief.\nuser: Hello\nassistant:",
    );
  });

  it("streamText: the pieces make up the text", async () => {
    const result = streamText({ model: scripted("Good morrow!").model, prompt: "Hello" });
    const pieces: string[] = [];
    for await (const piece of result.textStream) pieces.push(piece);
    expect(pieces.length).toBeGreaterThan(2);
    expect(pieces.join("")).toBe("Good morrow!");
    expect(await result.finishReason).toBe("stop");
  });

  it("an object of a schema", async () => {
    const output = Output.object({ schema: z.object({ a: z.int() }) });
    const result = await generateText({ model: scripted('{"a": 7}').model, prompt: "?", output });
    expect(result.output).toEqual({ a: 7 });
    const bad = generateText({ model: scripted("no").model, prompt: "?", output });
    await expect(bad).rejects.toThrow(NoObjectGeneratedError);
  });

  it("a tool is called, and its result goes back into the prompt", async () => {
    const text = '<tool_call>{"name": "weather", "arguments": {"city": "Verona"}}</tool_call>';
    const { model, engine, tokenizer } = scripted(text);
    const weather = tool({
      inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => `sunny in ${city}`,
    });
    const first = await generateText({ model, prompt: "?", tools: { weather } });
    expect(first.toolResults[0]).toMatchObject({ toolName: "weather", output: "sunny in Verona" });
    expect(first.finishReason).toBe("tool-calls");
    const messages = [{ role: "user" as const, content: "?" }, ...first.response.messages];
    await generateText({ model, messages, tools: { weather } });
    const prompt = tokenizer.decode(Array.from(engine.request!.promptIds));
    expect(prompt).toContain('{"city": "Verona"}\ntool: sunny in Verona');
  });

  it("a streamed tool call comes whole", async () => {
    const text = 'Wait. <tool_call>{"name": "f", "arguments": {}}</tool_call>';
    const f = tool({ inputSchema: z.object({}), execute: async () => "done" });
    const result = streamText({ model: scripted(text).model, prompt: "?", tools: { f } });
    expect(await result.text).toBe("Wait. ");
    expect((await result.toolCalls).map(({ toolName }) => toolName)).toEqual(["f"]);
  });

  it("what is out of range is refused by name; a file is refused", async () => {
    const { model } = scripted("");
    const ask = (more: object) => generateText({ model, prompt: "?", maxRetries: 0, ...more });
    await expect(ask({ temperature: 9 })).rejects.toThrow(/^temperature: /);
    await expect(ask({ providerOptions: { flashmla: { min_p: 2 } } })).rejects.toThrow(/^min_p: /);
    const content = [{ type: "file" as const, data: "AA==", mediaType: "image/png" }];
    const messages = [{ role: "user" as const, content }];
    await expect(generateText({ model, messages, maxRetries: 0 })).rejects.toThrow("takes text only");
  });

  it("an abort in the middle ends the request", async () => {
    const { model, engine } = fakeServer();
    const controller = new AbortController();
    const { textStream } = streamText({
      model: new FlashmlaLanguageModel(model),
      prompt: "?",
      maxOutputTokens: 100,
      abortSignal: controller.signal,
      providerOptions: { flashmla: { ignore_eos: true } },
      onError: () => {},
    });
    for await (const _ of textStream) controller.abort();
    while (engine.statistics().usedPages > 0) await new Promise((done) => setImmediate(done));
    expect(engine.statistics()).toMatchObject({ running: 0, finished: { abort: 1 } });
  });
});
