import { errorMessage, UserError } from "../base/errors.ts";
import { ContextLengthError, EngineClosedError, QueueFullError, StepError } from "../engine/errors.ts";

/** What an {@link ApiError} says beside its status and message. */
export interface ApiErrorDetails {
  /** OpenAI's word for the kind of error; follows from the status when left out. */
  readonly type?: string;
  readonly code?: string;
  /** The field of the request that is at fault. */
  readonly param?: string;
  readonly retryAfterSeconds?: number;
  readonly cause?: unknown;
}

function typeOf(status: number): string {
  if (status === 401) return "authentication_error";
  if (status === 403) return "permission_error";
  if (status === 404) return "not_found_error";
  if (status === 429) return "rate_limit_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

/** An answer in the shape of OpenAI's errors. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly status: number;
  readonly type: string;
  readonly code: string | null;
  readonly param: string | null;
  readonly retryAfterSeconds: number | null;

  constructor(status: number, message: string, details: ApiErrorDetails = {}) {
    super(message, details.cause === undefined ? {} : { cause: details.cause });
    this.status = status;
    this.type = details.type ?? typeOf(status);
    this.code = details.code ?? null;
    this.param = details.param ?? null;
    this.retryAfterSeconds = details.retryAfterSeconds ?? null;
  }

  /** The body of the answer, or of the last event of a stream. */
  toJSON(): { error: { message: string; type: string; param: string | null; code: string | null } } {
    return { error: { message: this.message, type: this.type, param: this.param, code: this.code } };
  }
}

/** A 400 that names the field at fault. */
export function invalid(param: string, message: string, code = "invalid_value"): ApiError {
  return new ApiError(400, `${param}: ${message}`, { param, code });
}

const BUSY_SECONDS = 1;
const DRAIN_SECONDS = 5;

/** The answer to whatever was thrown. What is not foreseen becomes a 500 that says nothing of the inside. */
export function toApiError(error: unknown): ApiError {
  const cause = error;
  if (error instanceof ApiError) return error;
  if (error instanceof ContextLengthError) {
    return new ApiError(400, error.message, { code: "context_length_exceeded", cause });
  }
  if (error instanceof QueueFullError) {
    return new ApiError(429, error.message, {
      code: "rate_limit_exceeded",
      retryAfterSeconds: BUSY_SECONDS,
      cause,
    });
  }
  if (error instanceof EngineClosedError) {
    return new ApiError(503, error.message, {
      code: "shutting_down",
      retryAfterSeconds: DRAIN_SECONDS,
      cause,
    });
  }
  if (error instanceof StepError) {
    return new ApiError(500, "The step that computed this request failed; try again.", {
      code: "step_failed",
      cause,
    });
  }
  if (error instanceof UserError) return new ApiError(400, error.message, { cause });
  return new ApiError(500, "The server failed on this request; its log says why.", {
    code: "internal_error",
    cause,
  });
}

/** The 400 for a field the engine refuses; anything else as {@link toApiError} has it. */
export function refusal(error: unknown): ApiError {
  const isField = error instanceof TypeError || error instanceof RangeError;
  if (!isField || error instanceof ContextLengthError) return toApiError(error);
  return new ApiError(400, errorMessage(error), { code: "invalid_value", cause: error });
}
