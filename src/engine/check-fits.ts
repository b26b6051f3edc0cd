import { UserError } from "../base/errors.ts";
import { mebibytes } from "../base/mebibytes.ts";
import type { Device } from "../device/device.ts";
import type { ModelConfig } from "../formats/config-types.ts";
import { cacheFootprint, mostCacheTokens, PAGE_SIZE } from "./cache-footprint.ts";
import { type RunnerSizes, runnerBytes } from "./runner-memory.ts";

const size = (bytes: number) => (bytes < 2 ** 30 ? mebibytes(bytes) : `${(bytes / 2 ** 30).toFixed(1)} GiB`);

/** Of the free memory, what advice leaves for tables, recorded steps and padding. */
const UNCOUNTED = 1 / 64;

/** Throws UserError, with the numbers and what would fit, when weights, cache and activations together cannot fit the device. */
export function checkFits(
  device: Device,
  config: ModelConfig,
  weightBytes: number,
  sizes: RunnerSizes,
  maxLength: number,
): void {
  const { bytesPerToken } = cacheFootprint(config, sizes.cacheDtype);
  const free = device.limits.memoryBytes - device.memory.usedBytes;
  const tokens = sizes.pageCount * sizes.pageSize;
  const most = mostCacheTokens(device.limits, config, sizes.cacheDtype);
  if (tokens > most) {
    throw new UserError(
      `A cache of ${tokens} tokens takes ${size(tokens * bytesPerToken)}, more than a buffer of this adapter holds or binds: ` +
        `at most ${most} tokens would fit.`,
    );
  }
  const room = free * (1 - UNCOUNTED) - weightBytes;
  // Lengths beyond what could be cached at all would only make tables that no host can hold either.
  const longest = Math.max(PAGE_SIZE, Math.min(maxLength, Math.floor(free / bytesPerToken)));
  const computing = (one: RunnerSizes, length: number) =>
    runnerBytes(device, { config, maxLength: length }, { ...one, pageCount: 1 });
  const stepBytes = computing(sizes, longest) - PAGE_SIZE * bytesPerToken;
  if (weightBytes + tokens * bytesPerToken + stepBytes <= free) return;
  const left = Math.floor((room - stepBytes) / bytesPerToken / PAGE_SIZE) * PAGE_SIZE;
  const fitsAtAll = computing({ ...sizes, maxDecodeRows: 1, maxChunkTokens: 1 }, PAGE_SIZE) <= room;
  const advice =
    left >= PAGE_SIZE
      ? `a cache of at most ${left} tokens would fit`
      : fitsAtAll
        ? "fewer sequences at a time, or a shorter context, would fit"
        : `a model of at most ${size(free)} with its cache would fit`;
  throw new UserError(
    `The model needs ${size(weightBytes)} for its weights, ${size(tokens * bytesPerToken)} for a cache of ${tokens} ` +
      `tokens and ${size(stepBytes)} to compute with, but the ${device.kind} device has ${size(free)}: ${advice}.`,
  );
}
