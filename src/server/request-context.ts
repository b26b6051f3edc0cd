import type { RequestRecord } from "./request-log.ts";
import type { ServedModel } from "./served-model.ts";

/** Limits of a server. */
export interface ServerLimits {
  /** Bytes of a body. */
  readonly maxBodyBytes: number;
  /** A streaming client that takes nothing for so long is cut off. */
  readonly stallMs: number;
  /** Prompts of one plain completion. */
  readonly maxPrompts: number;
}

/** What a route gets to work with. */
export interface RequestContext {
  readonly request: Request;
  readonly model: ServedModel;
  readonly limits: ServerLimits;
  /** Requests of one caller share its turn in the engine. */
  readonly client: string;
  /** Ends the work for this request: aborts when the client goes, or when `abort` is called. */
  readonly signal: AbortSignal;
  readonly abort: (reason: Error) => void;
  /** Called once when a streamed answer is over, with what broke it. */
  readonly end: (error?: unknown) => void;
  /** What the log will say of this request. */
  readonly record: RequestRecord;
}
