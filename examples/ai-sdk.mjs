// The AI SDK with a model in this process, no server: node examples/ai-sdk.mjs
import { generateText, Output, streamText } from "ai";
import { openFlashmla } from "flashmla/ai-sdk";
import { z } from "zod";

const flashmla = await openFlashmla(); // the shipped model; { model: "openbmb/MiniCPM3-4B" } for another
const { model } = flashmla;

const { textStream, usage } = streamText({ model, prompt: "How now, good nurse?", maxOutputTokens: 60 });
for await (const text of textStream) process.stdout.write(text);
console.log(`\n${(await usage).outputTokens} tokens`);

const { output } = await generateText({
  model,
  prompt: "Of what house art thou?",
  output: Output.object({ schema: z.object({ house: z.enum(["Montague", "Capulet"]) }) }),
});
console.log(output);

await flashmla.close();
