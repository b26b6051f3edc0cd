// The openai client with a flashmla server: npx flashmla serve, then node examples/openai.mjs
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: `${process.env.FLASHMLA_URL ?? "http://127.0.0.1:8000"}/v1`,
  apiKey: process.env.FLASHMLA_API_KEY ?? "none",
});
const [{ id: model }] = (await client.models.list()).data;

// A streamed answer.
const stream = await client.chat.completions.create({
  model,
  messages: [{ role: "user", content: "O Romeo, wherefore art thou Romeo?" }],
  max_tokens: 60,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta.content ?? "");
  if (chunk.usage) console.log(`\n${chunk.usage.completion_tokens} tokens`);
}

// JSON of a given shape: the model cannot write anything else.
const schema = {
  type: "object",
  properties: {
    house: { enum: ["Montague", "Capulet"] },
    age: { type: "integer", minimum: 10, maximum: 99 },
  },
  required: ["house", "age"],
  additionalProperties: false,
};
const answer = await client.chat.completions.create({
  model,
  messages: [{ role: "user", content: "Of what house art thou?" }],
  response_format: { type: "json_schema", json_schema: { name: "person", schema } },
});
console.log(JSON.parse(answer.choices[0].message.content));
