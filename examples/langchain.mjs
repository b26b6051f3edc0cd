// LangChain.js with a flashmla server: npx flashmla serve, then node examples/langchain.mjs
import { ChatPromptTemplate } from "@langchain/core/prompts";
import { ChatOpenAI } from "@langchain/openai";

const model = new ChatOpenAI({
  model: "shakespeare-mla",
  apiKey: process.env.FLASHMLA_API_KEY ?? "none",
  configuration: { baseURL: `${process.env.FLASHMLA_URL ?? "http://127.0.0.1:8000"}/v1` },
  temperature: 0.8,
  maxTokens: 60,
});

const prompt = ChatPromptTemplate.fromMessages([["user", "What sayest thou of {topic}?"]]);
const chain = prompt.pipe(model);

for await (const chunk of await chain.stream({ topic: "love" })) process.stdout.write(chunk.text);

const answer = await chain.invoke({ topic: "war" });
console.log(`\n\n${answer.text}\n${answer.usage_metadata.output_tokens} tokens`);
