import { describe, expect, it } from "vitest";
import { fakeServer, post, readEvents } from "../../tests/fixtures/server-fixture.ts";

const chat = (more: object = {}) => ({
  messages: [{ role: "user", content: "hello" }],
  temperature: 0,
  max_tokens: 8,
  ...more,
});

describe("answers", () => {
  it("a stream is the whole answer in pieces, its usage last", async () => {
    const { handler } = fakeServer();
    const whole = (await (
      await handler.fetch(post("/v1/chat/completions", chat({ n: 2, seed: 1, temperature: 1 })))
    ).json()) as {
      choices: { message: { content: string }; finish_reason: string }[];
      usage: object;
    };
    const body = chat({
      n: 2,
      seed: 1,
      temperature: 1,
      stream: true,
      stream_options: { include_usage: true },
    });
    const events = await readEvents<{
      choices: { index: number; delta: { role?: string; content?: string }; finish_reason: string | null }[];
      usage: { completion_tokens: number } | null;
    }>(await handler.fetch(post("/v1/chat/completions", body)));
    const texts = ["", ""];
    for (const { choices } of events)
      for (const { index, delta } of choices) texts[index] += delta.content ?? "";
    expect(texts).toEqual(whole.choices.map(({ message }) => message.content));
    expect(texts[0]).not.toBe(texts[1]);
    expect(events.slice(0, -1).every(({ usage }) => usage === null)).toBe(true);
    expect(events.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: expect.any(Number) } });
    const ends = events
      .flatMap(({ choices }) => choices.map((choice) => choice.finish_reason))
      .filter(Boolean);
    expect(ends).toEqual(whole.choices.map((choice) => choice.finish_reason));
  });

  it("several prompts, text and ids alike, each with n choices in order", async () => {
    const { handler, model } = fakeServer();
    const ids = [...model.tokenizer.encode("one")];
    const ask = async (prompt: unknown) => {
      const body = { prompt, n: 2, seed: 3, max_tokens: 5, ignore_eos: true, echo: true };
      const response = await handler.fetch(post("/v1/completions", body));
      return (await response.json()) as { choices: { index: number; text: string }[]; usage: object };
    };
    const both = await ask(["one", "two"]);
    expect(both.choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    expect(both.choices.map(({ text }) => text.slice(0, 3))).toEqual(["one", "one", "two", "two"]);
    expect(both.usage).toMatchObject({ completion_tokens: 20 });
    expect((await ask(ids)).choices.map(({ text }) => text)).toEqual(
      both.choices.slice(0, 2).map(({ text }) => text),
    );
  });

  it("tokenize and detokenize are each other's inverse", async () => {
    const { handler, model } = fakeServer();
    const answer = await handler.fetch(
      post("/tokenize", { prompt: "Grüße, world", return_token_strs: true }),
    );
    const { tokens, count, max_model_len, token_strs } = (await answer.json()) as Record<string, never[]>;
    expect(tokens).toEqual([...model.tokenizer.encode("Grüße, world")]);
    expect([count, max_model_len, token_strs?.length]).toEqual([tokens!.length, 128, tokens!.length]);
    const back = await handler.fetch(post("/detokenize", { tokens }));
    expect(await back.json()).toEqual({
      prompt: model.tokenizer.decode(tokens!, { skipSpecialTokens: false }),
    });
  });

  it("metrics have vLLM's names and count what was done", async () => {
    const { handler } = fakeServer();
    await handler.fetch(post("/v1/chat/completions", chat({ ignore_eos: true })));
    const text = await (await handler.fetch(new Request("http://localhost/metrics"))).text();
    const labels = 'model_name="fake",engine="0"';
    expect(text).toContain(`vllm:generation_tokens_total{${labels}} 8`);
    expect(text).toContain(`vllm:request_success_total{finished_reason="length",${labels}} 1`);
    for (const name of ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"]) {
      expect(text).toContain(`vllm:${name}{${labels}} 0`);
    }
    expect(text).toMatch(/vllm:cache_config_info\{block_size="64",num_gpu_blocks="\d+",.*\} 1/);
    // What vLLM's own dashboard asks for, and the rest of what its server shows of a request.
    const histograms = [
      ...[
        "time_to_first_token",
        "inter_token_latency",
        "request_time_per_output_token",
        "e2e_request_latency",
      ],
      ...["request_queue_time", "request_inference_time", "request_prefill_time", "request_decode_time"],
    ].map((name) => `${name}_seconds`);
    histograms.push("request_prompt_tokens", "request_generation_tokens", "iteration_tokens_total");
    histograms.push("request_max_num_generation_tokens", "request_params_n", "request_params_max_tokens");
    for (const name of histograms) {
      const count = text.match(`\nvllm:${name}_count{${labels}} (\\d+)`)?.[1];
      const expected = { inter_token_latency_seconds: "7", iteration_tokens_total: "8" }[name] ?? "1";
      expect(count, name).toBe(expected);
      expect(text).toContain(`\nvllm:${name}_bucket{le="`);
    }
    const totals = ["num_preemptions", "prompt_tokens", "prefix_cache_queries", "prefix_cache_hits"];
    totals.push("spec_decode_num_drafts", "spec_decode_num_draft_tokens", "spec_decode_num_accepted_tokens");
    for (const name of totals) expect(text).toMatch(new RegExp(`\nvllm:${name}_total\\{${labels}\\} \\d`));
  });

  it("the page is one file that asks nobody else", async () => {
    const { handler } = fakeServer();
    const page = await (await handler.fetch(new Request("http://localhost/"))).text();
    expect(page).toContain("<!doctype html>");
    expect(page).not.toMatch(/(?:src|href)=|https?:\/\//);
  });
});
