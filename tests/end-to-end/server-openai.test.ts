import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { type ShippedServer, shippedServer } from "../fixtures/shipped-server.ts";

const model = "shakespeare-mla";
const messages = [{ role: "user" as const, content: "Good morrow!" }];
let server: ShippedServer;
let client: OpenAI;

beforeAll(async () => {
  server = await shippedServer({ takesTools: true, maxRunning: 8 });
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
});
afterAll(() => server.stop());

const greedy = { model, messages, temperature: 0, max_tokens: 24 };

describe("the openai client", () => {
  it("lists and describes the model", async () => {
    expect((await client.models.list()).data.map(({ id }) => id)).toEqual([model]);
    expect(await client.models.retrieve(model)).toMatchObject({ id: model, object: "model" });
  });

  it("chat: an answer with usage, an id and a request id", async () => {
    const answer = await client.chat.completions.create(greedy);
    expect(answer.choices[0]!.message.content!.length).toBeGreaterThan(5);
    expect(answer.id).toMatch(/^chatcmpl-/);
    expect(answer._request_id).toMatch(/^req_/);
    const { prompt_tokens, completion_tokens, total_tokens } = answer.usage!;
    expect(total_tokens).toBe(prompt_tokens + completion_tokens);
    expect(completion_tokens).toBeLessThanOrEqual(24);
  });

  it("streaming: the same greedy text in pieces, the usage last", async () => {
    const whole = await client.chat.completions.create(greedy);
    const stream = await client.chat.completions.create({
      ...greedy,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = "";
    let usage: unknown;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    expect(text).toBe(whole.choices[0]!.message.content);
    expect(usage).toMatchObject({ completion_tokens: whole.usage!.completion_tokens });
  });

  it("its stream helper folds the pieces", async () => {
    const whole = await client.chat.completions.create(greedy);
    const stream = client.chat.completions.stream({ ...greedy, logprobs: true });
    expect(await stream.finalContent()).toBe(whole.choices[0]!.message.content);
    const { choices } = await stream.finalChatCompletion();
    expect(choices[0]!.finish_reason).toBe(whole.choices[0]!.finish_reason);
    expect(choices[0]!.logprobs!.content).toHaveLength(whole.usage!.completion_tokens);
  });

  it("abort: the request ends and its pages come back", async () => {
    const before = server.model.engine.statistics().finished.abort;
    const body = { ...greedy, stream: true as const, max_tokens: 900, ignore_eos: true };
    const stream = await client.chat.completions.create(body);
    for await (const chunk of stream) {
      if ((chunk.choices[0]?.delta.content ?? "") !== "") break;
    }
    expect((await server.settle()).finished.abort).toBe(before + 1);
  });

  it("abort before the answer", async () => {
    const before = server.model.engine.statistics().finished.abort;
    const controller = new AbortController();
    const body = { ...greedy, max_tokens: 900, ignore_eos: true };
    const answer = client.chat.completions.create(body, { signal: controller.signal });
    while (server.model.engine.statistics().running === 0) await new Promise((done) => setTimeout(done, 5));
    controller.abort();
    await expect(answer).rejects.toThrow(OpenAI.APIUserAbortError);
    expect((await server.settle()).finished.abort).toBe(before + 1);
  });

  it("n and seed: different choices, the same each time", async () => {
    const ask = async (seed: number) => {
      const answer = await client.chat.completions.create({ ...greedy, temperature: 1, n: 3, seed });
      return answer.choices.map(({ message }) => message.content);
    };
    const first = await ask(7);
    expect(new Set(first).size).toBe(3);
    expect(await ask(7)).toEqual(first);
    expect(await ask(8)).not.toEqual(first);
  });

  it("stop: ends before the string, which is not part of the text", async () => {
    const whole = (await client.completions.create({ ...greedy, prompt: "ROMEO:\nI", max_tokens: 60 }))
      .choices[0]!;
    const stop = whole.text.slice(8, 11);
    const cut = await client.completions.create({
      ...greedy,
      prompt: "ROMEO:\nI",
      max_tokens: 60,
      stop: [stop],
    });
    expect(cut.choices[0]).toMatchObject({
      text: whole.text.slice(0, whole.text.indexOf(stop)),
      finish_reason: "stop",
    });
  });

  it("logprobs: of each token and the likeliest, whose bytes make up the text", async () => {
    const answer = await client.chat.completions.create({ ...greedy, logprobs: true, top_logprobs: 3 });
    const { logprobs, message } = answer.choices[0]!;
    const tokens = logprobs!.content!;
    const bytes = tokens.flatMap((token) => token.bytes ?? []);
    const text = Buffer.from(bytes).toString();
    expect(text.replace("<eos>", "")).toBe(message.content);
    for (const { token, logprob, top_logprobs } of tokens) {
      expect(top_logprobs).toHaveLength(3);
      expect(top_logprobs[0]!.token).toBe(token);
      expect(top_logprobs[0]!.logprob).toBeCloseTo(logprob, 5);
      expect(logprob).toBeLessThanOrEqual(0);
    }
  });

  it("logit_bias: a token at +100 is all that comes", async () => {
    const [id] = server.model.tokenizer.encode("love", { addSpecialTokens: false });
    const body = { model, prompt: "My", max_tokens: 3, temperature: 0, logit_bias: { [id!]: 100 } };
    const answer = await client.completions.create(body);
    const piece = server.model.tokenizer.decode([id!]);
    expect(answer.choices[0]!.text).toBe(piece.repeat(3));
  });

  it("json_schema: an object of that shape", async () => {
    const Person = z.object({ name: z.enum(["Romeo", "Juliet"]), age: z.int().min(10).max(99) });
    const answer = await client.chat.completions.parse({
      ...greedy,
      max_tokens: 100,
      response_format: zodResponseFormat(Person, "person"),
    });
    expect(Person.parse(answer.choices[0]!.message.parsed)).toBeTruthy();
  });

  it("tools: a forced call with arguments of its schema", async () => {
    const tool = {
      type: "function" as const,
      function: {
        name: "duel",
        parameters: {
          type: "object",
          properties: { weapon: { enum: ["sword", "dagger"] } },
          required: ["weapon"],
          additionalProperties: false,
        },
      },
    };
    for (const tool_choice of [
      "required" as const,
      { type: "function" as const, function: { name: "duel" } },
    ]) {
      const answer = await client.chat.completions.create({
        ...{ ...greedy, max_tokens: 200, tools: [tool], tool_choice },
        parallel_tool_calls: false,
      });
      const { message, finish_reason } = answer.choices[0]!;
      const call = message.tool_calls![0]!;
      expect(finish_reason).toBe("tool_calls");
      if (call.type !== "function") throw new Error(`a call of type ${call.type}`);
      expect(call.function.name).toBe("duel");
      expect(["sword", "dagger"]).toContain(
        (JSON.parse(call.function.arguments) as { weapon: string }).weapon,
      );
    }
  });

  it("errors come as the client's classes", async () => {
    const send = (more: object) => client.chat.completions.create({ ...greedy, ...more });
    await expect(send({ temperature: 9 })).rejects.toThrow(OpenAI.BadRequestError);
    await expect(send({ temperature: 9 })).rejects.toMatchObject({ status: 400, param: "temperature" });
    await expect(send({ model: "gpt-4" })).rejects.toThrow(OpenAI.NotFoundError);
    await expect(send({ max_tokens: 5000 })).rejects.toMatchObject({ code: "context_length_exceeded" });
  });

  it("a second request with the same beginning finds it in the cache", async () => {
    const content = "What light through yonder window breaks? It is the east. ".repeat(8);
    const ask = () =>
      client.chat.completions.create({ ...greedy, messages: [{ role: "user", content }], max_tokens: 1 });
    const first = (await ask()).usage!;
    const second = (await ask()).usage!;
    expect(second.prompt_tokens).toBe(first.prompt_tokens);
    expect(second.prompt_tokens_details!.cached_tokens).toBeGreaterThanOrEqual(
      Math.floor((first.prompt_tokens - 1) / 64) * 64,
    );
  });
});
