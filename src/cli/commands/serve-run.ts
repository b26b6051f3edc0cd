import { pino } from "pino";
import { collectDefaultMetrics } from "prom-client";
import { modelFit } from "../../engine/language-model.ts";
import { resolveModel } from "../../formats/hub.ts";
import { drainServer } from "../../server/drain.ts";
import { createServerHandler } from "../../server/handler.ts";
import { checkAddress, isLoopback, type ListeningServer, listen } from "../../server/listen.ts";
import { type LocalModel, openLocalModel } from "../../server/local-model.ts";
import { openFlaggedDevice } from "../device-choice.ts";
import { shippedModel } from "../model-session.ts";
import { formatBytes, note, paintError } from "../output.ts";
import { startProgress } from "../progress.ts";
import type { ServeFlags } from "./serve-flags.ts";

function keysOf({ apiKey = [] }: ServeFlags): string[] {
  const fromEnvironment = (process.env.FLASHMLA_API_KEY ?? "").split(",");
  return [...apiKey, ...fromEnvironment].map((key) => key.trim()).filter((key) => key !== "");
}

/** Resolves with the name of the first signal that asks the server to end; a second one ends the process at once. */
function askedToEnd(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    const signals = ["SIGTERM", "SIGINT"] as const;
    for (const signal of signals) {
      process.once(signal, () => {
        for (const again of signals) process.on(again, () => process.exit(1));
        resolve(signal);
      });
    }
  });
}

async function openModel(model: string | undefined, flags: ServeFlags): Promise<LocalModel> {
  const folder = model === undefined ? shippedModel : await resolveModel(model);
  const { cache: cacheDtype, exact, maxContext, cacheTokens } = flags;
  const sizes = { cacheDtype, exact, maxContext, cacheTokens };
  const chosen = await openFlaggedDevice(flags, await modelFit(folder, sizes));
  if (chosen.line !== null) note(paintError.dim(chosen.line));
  let { device } = chosen;
  const reopenDevice = async () => {
    await device.close();
    device = (await openFlaggedDevice({ ...flags, device: device.kind })).device;
    return device;
  };
  const bar = startProgress("Loading weights", "bytes");
  try {
    return await openLocalModel(folder, {
      ...{ ...sizes, device, reopenDevice },
      name: flags.servedModelName ?? model,
      onNote: note,
      maxRunning: flags.maxRunning,
      maxWaiting: flags.maxWaiting,
      draftTokens: flags.draftTokens,
      prefixReuse: flags.prefixReuse,
      onProgress: (done, total) => bar.update(done, total),
    });
  } catch (error) {
    await device.close();
    throw error;
  } finally {
    bar.stop();
  }
}

function greet({ url }: ListeningServer, model: LocalModel, hasKey: boolean): void {
  const cache = `${model.cacheTokens} tokens`;
  note(`${paintError.bold(model.name)}: ${formatBytes(model.weightBytes)} of weights, a cache of ${cache}`);
  note(`  chat      ${url}/`);
  note(`  OpenAI    ${url}/v1${hasKey ? "  (with a key)" : ""}`);
  note(`  metrics   ${url}/metrics`);
}

/** Serves a model until SIGTERM or Ctrl-C, drains, and ends the process with 0, or 1 when requests were cut. */
export async function serve(model: string | undefined, flags: ServeFlags, version: string): Promise<never> {
  const apiKeys = keysOf(flags);
  checkAddress(flags.host, apiKeys.length > 0);
  const logger = pino({ level: flags.logLevel });
  const local = await openModel(model, flags);
  collectDefaultMetrics({ register: local.metrics.registry });
  const handler = createServerHandler({
    ...{ model: local, metrics: local.metrics, version, logger, apiKeys },
    origins: flags.corsOrigin ?? [],
    localOnly: isLoopback(flags.host) && apiKeys.length === 0,
    limits: { maxBodyBytes: flags.maxBodyBytes },
  });
  const ending = askedToEnd();
  const listening = await listen(handler, flags);
  greet(listening, local, apiKeys.length > 0);
  logger.info({ url: listening.url, model: local.name, maxContext: local.engine.maxContext }, "listening");
  const signal = await ending;
  const { running, waiting } = local.engine.statistics();
  logger.info({ signal, running, waiting }, "draining");
  const complete = await drainServer({ listening, handler, engine: local.engine }, flags.drainSeconds * 1000);
  logger.info({ complete }, "stopped");
  // The device's threads and the metrics' timers end with the process.
  process.exit(complete ? 0 : 1);
}
