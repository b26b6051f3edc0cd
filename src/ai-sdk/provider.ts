import { fileURLToPath } from "node:url";
import { openDevice } from "../device/open.ts";
import { modelFit } from "../engine/language-model.ts";
import { resolveModel } from "../formats/hub.ts";
import { type LocalModelOptions, openLocalModel } from "../server/local-model.ts";
import { FlashmlaLanguageModel } from "./language-model.ts";

/** How {@link openFlashmla} opens a model. */
export interface OpenFlashmlaOptions extends Omit<LocalModelOptions, "device"> {
  /** A folder, or an id of the hub (owner/name); the model that ships with flashmla. */
  readonly model?: string | undefined;
  /** "cpu", "cuda" …; the best one here. */
  readonly device?: string | undefined;
  /** Threads of the CPU device; all processors. */
  readonly threads?: number | undefined;
}

/** A model that is open in this process. */
export interface Flashmla {
  /** For `generateText`, `streamText` and the rest of the AI SDK; calls at the same time share the engine's batch. */
  readonly model: FlashmlaLanguageModel;
  /** Ends what runs and gives the memory and threads back. */
  close(): Promise<void>;
}

const shippedModel = fileURLToPath(new URL("../../models/shakespeare-mla", import.meta.url));

/**
 * Opens a model for the AI SDK, in this process and with no server. Rejects with a UserError when there is no such model
 * or it does not fit.
 */
export async function openFlashmla(options: OpenFlashmlaOptions = {}): Promise<Flashmla> {
  const { model: source, device: kind, threads, ...rest } = options;
  const folder = source === undefined ? shippedModel : await resolveModel(source);
  const whyNot = await modelFit(folder, rest);
  const device = await openDevice({ kind, whyNot, ...(threads === undefined ? {} : { threads }) });
  try {
    const local = await openLocalModel(folder, { name: source, ...rest, device });
    const close = async () => {
      await local.close();
      await device.close();
    };
    return { model: new FlashmlaLanguageModel(local), close };
  } catch (error) {
    await device.close();
    throw error;
  }
}
