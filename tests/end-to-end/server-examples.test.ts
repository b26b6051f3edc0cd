import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type ShippedServer, shippedServer } from "../fixtures/shipped-server.ts";

const folder = join(import.meta.dirname, "..", "..", "examples");
let server: ShippedServer;
beforeAll(async () => {
  server = await shippedServer({ maxRunning: 8, handler: { apiKeys: ["secret"] } });
});
afterAll(() => server.stop());

async function run(file: string): Promise<string> {
  const program = file.endsWith(".sh") ? "sh" : process.execPath;
  const env = { ...process.env, FLASHMLA_URL: server.url, FLASHMLA_API_KEY: "secret" };
  const { stdout } = await promisify(execFile)(program, [join(folder, file)], { env, timeout: 100_000 });
  return stdout;
}

const shown: Record<string, RegExp> = {
  "ai-sdk.mjs": /\d+ tokens\n\{ house: '(Montague|Capulet)' \}\n$/,
  "curl.sh": /"object":"chat\.completion"[\s\S]*data: \[DONE\][\s\S]*"count":\d+/,
  "engine.mjs": /HAMLET \((stop|length), \d+ tokens\)[\s\S]*tokens\/s\n$/,
  "langchain.mjs": /\n\d+ tokens\n$/,
  "openai.mjs": /\n\d+ tokens\n\{ house: '(Montague|Capulet)', age: \d\d \}\n$/,
};

it("every example is here, in under 40 lines", () => {
  expect(readdirSync(folder).sort()).toEqual(Object.keys(shown));
  for (const file of Object.keys(shown)) {
    expect(readFileSync(join(folder, file), "utf8").split("\n").length, file).toBeLessThan(40);
  }
});

it.each(Object.keys(shown))("%s runs", async (file) => {
  expect(await run(file)).toMatch(shown[file]!);
});
