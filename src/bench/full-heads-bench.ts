import { UserError } from "../base/errors.ts";
import { mebibytes } from "../base/mebibytes.ts";
import type { Device } from "../device/device.ts";
import type { Ceilings } from "./ceilings.ts";
import { CompareArena } from "./compare/arena.ts";
import { makeDecoder, recordDecoder } from "./compare/decoder.ts";
import { cacheBytesPerToken, compareForms, compareShapes, modelParameters } from "./compare/shapes.ts";
import { measureDeviceCeilings } from "./device-ceilings.ts";
import {
  cellResult,
  type DecodeCell,
  type DecodeCellResult,
  type ShapeBenchOptions,
  type ShapeBenchResult,
} from "./shape-bench.ts";

const shape = compareShapes["7b"]!;
const form = compareForms.find(({ id }) => id === "flash")!;
const LAYER_BYTES = cacheBytesPerToken(shape, form);

/** Bytes that a step reads: all weights but the embedding, and every cached key and value. */
function stepBytes({ batch, cachedTokens }: DecodeCell): number {
  const weights = 2 * (modelParameters(shape, form) - shape.vocab * shape.hidden);
  return weights + batch * cachedTokens * LAYER_BYTES * shape.layers;
}

async function measureCell(
  device: Device,
  cell: DecodeCell,
  steps: number,
  ceilings: Ceilings | null,
): Promise<DecodeCellResult> {
  const arena = new CompareArena(device);
  const compared = { batch: cell.batch, context: cell.cachedTokens };
  try {
    const decoder = makeDecoder(arena, shape, form, compared);
    const program = device.record((launch) => recordDecoder(launch, shape, form, compared, decoder));
    const times: number[] = [];
    for (let step = 0; step < steps + 1; step++) times.push(await program.time());
    program.free();
    return cellResult(cell, times.slice(1), stepBytes(cell), ceilings);
  } finally {
    arena.free();
  }
}

/** Throws UserError, with the numbers, when weights and the longest cache together cannot fit. */
function checkRoom(device: Device, tokens: number, tokenBytes: number): void {
  const weights = 2 * modelParameters(shape, form);
  const free = device.limits.memoryBytes - device.memory.usedBytes;
  if (weights + tokens * tokenBytes <= free) return;
  const left = Math.floor((free - weights) / tokenBytes);
  const advice = left > 0 ? `at most ${left} tokens would fit` : "the weights alone do not fit";
  throw new UserError(
    `The model needs ${mebibytes(weights)} for its weights and ${mebibytes(tokens * tokenBytes)} for ${tokens} cached tokens, but ` +
      `the ${device.kind} device has ${mebibytes(free)}: ${advice}.`,
  );
}

/**
 * Decoding of the 7B whose cache holds every head's keys and values, for the comparison with latent attention: the decoder of
 * `bench compare`, from token ids to logits, by the device's clock. No prompts. Rejects with a UserError when it does not fit.
 */
export async function runFullHeadsBench(
  device: Device,
  { cells, steps, onPart }: Pick<ShapeBenchOptions, "cells" | "steps" | "onPart">,
): Promise<ShapeBenchResult> {
  const most = Math.max(...cells.map(({ batch, cachedTokens }) => batch * cachedTokens));
  const cacheBytesAToken = LAYER_BYTES * shape.layers;
  checkRoom(device, most, cacheBytesAToken);
  onPart?.("ceilings");
  const ceilings = await measureDeviceCeilings(device);
  const decode: DecodeCellResult[] = [];
  for (const cell of cells) {
    onPart?.(`decode, ${cell.batch} × ${cell.cachedTokens} cached tokens`);
    decode.push(await measureCell(device, cell, steps, ceilings));
  }
  return {
    ...{ ceilings, prefill: null, decode },
    memory: {
      weightBytes: 2 * modelParameters(shape, form),
      cacheBytes: most * cacheBytesAToken,
      cacheBytesPerToken: cacheBytesAToken,
      peakBytes: device.memory.peakBytes,
    },
  };
}
