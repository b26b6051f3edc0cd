import { type Command, InvalidArgumentError } from "commander";
import { UserError } from "../../base/errors.ts";
import { makeRequests, runLoad, tokensPerWord } from "../../bench/serve/load.ts";
import { formatReport, type Goals, reportLoad } from "../../bench/serve/serve-report.ts";
import { integerFlag, numberFlag } from "../flags.ts";
import { note, printJson, printLine } from "../output.ts";

interface ServeBenchFlags {
  readonly url: string;
  readonly model?: string;
  readonly apiKey?: string;
  readonly requests: number;
  readonly inputTokens: number;
  readonly prefixTokens: number;
  readonly outputTokens: number;
  readonly rate: number;
  readonly concurrency: number;
  readonly seed: number;
  readonly goodput?: Goals;
  readonly json?: boolean;
}

function goalsFlag(text: string, earlier: Goals = {}): Goals {
  const [, name, ms] = /^(ttft|tpot|e2el):(\d+(?:\.\d+)?)$/.exec(text) ?? [];
  if (name === undefined) throw new InvalidArgumentError("Expected ttft:<ms>, tpot:<ms> or e2el:<ms>.");
  return { ...earlier, [name]: Number(ms) };
}

function urlFlag(text: string): string {
  if (!URL.canParse(text)) throw new InvalidArgumentError("Expected a URL such as http://127.0.0.1:8000.");
  return text.replace(/\/+(?:v1\/*)?$/, "");
}

/** The one model that a server names. */
async function askModel(url: string, apiKey: string | null): Promise<string> {
  const headers = apiKey === null ? {} : { authorization: `Bearer ${apiKey}` };
  const response = await fetch(`${url}/v1/models`, { headers }).catch(() => null);
  const list = response?.ok ? ((await response.json()) as { data?: { id?: string }[] }) : undefined;
  const id = list?.data?.[0]?.id;
  if (id !== undefined) return id;
  throw new UserError(`The server at ${url} names no model; check --url and --api-key, or give --model.`);
}

async function benchServe(flags: ServeBenchFlags): Promise<void> {
  const { url, json, goodput = {} } = flags;
  const apiKey = flags.apiKey ?? (process.env.FLASHMLA_API_KEY || null);
  const endpoint = { url, apiKey, model: flags.model ?? (await askModel(url, apiKey)) };
  const perWord = await tokensPerWord(endpoint, flags.seed);
  const requests = makeRequests(flags, perWord);
  note(`${requests.length} requests to ${endpoint.model} at ${url}, ${flags.concurrency} at once`);
  const result = await runLoad(endpoint, requests, flags);
  const report = reportLoad(result, goodput);
  if (!json) printLine(formatReport(report, flags));
  if (result.failures.length > 0) note(`first failure: ${result.failures[0]!.error}`);
  if (json) printJson({ ...report, load: { ...flags, apiKey: undefined, model: endpoint.model } });
  if (report.completed === 0) throw new UserError("No request was answered; the failure is above.");
}

/** Adds `flashmla bench serve`: a load on any OpenAI endpoint, reported as `vllm bench serve` does. */
export function addServeBenchCommand(program: Command): void {
  const bench = program.commands.find((command) => command.name() === "bench");
  bench
    ?.command("serve")
    .description("Load any OpenAI endpoint and print throughput and latencies as vllm bench serve does.")
    .option("--url <url>", "the server", urlFlag, "http://127.0.0.1:8000")
    .option("--model <name>", "model to ask for; default: the first the server names")
    .option("--api-key <key>", "key to send; default: FLASHMLA_API_KEY")
    .option("--requests <n>", "requests in all", integerFlag(1, 1_000_000), 64)
    .option("--input-tokens <n>", "prompt tokens of each, roughly", integerFlag(1), 128)
    .option("--prefix-tokens <n>", "of those, tokens that all share", integerFlag(0), 0)
    .option("--output-tokens <n>", "tokens to draw for each", integerFlag(1), 64)
    .option(
      "--rate <n>",
      "requests a second, at random times; default: no wait",
      numberFlag(0.001),
      Number.POSITIVE_INFINITY,
    )
    .option("--concurrency <n>", "requests under way at most", integerFlag(1, 65_536), 16)
    .option("--seed <n>", "makes the load repeatable", integerFlag(0, 2 ** 31 - 1), 0)
    .option("--goodput <goal>", "ttft:<ms>, tpot:<ms> or e2el:<ms>; may be given several times", goalsFlag)
    .option("--json", "print one JSON object")
    .action((flags: ServeBenchFlags) => benchServe(flags));
}
