import { rowBytesOf } from "../common/gemm.as";
import {
  ITEM_OUTPUTS, multiplyPanel, PANEL_ROWS, RESULT, resultStride, SECOND_RESULT,
} from "../common/projection.as";
import { siluLanes } from "../common/silu.as";
import { argFloat, argInt, argPointer, multiplyAdd } from "../common/simd.as";

/**
 * Sorts the (token, choice) pairs by expert, in the order of tokens within one. One item. Buffers: ids, plan (i32
 * offsets [experts + 1], pairs [rows · perToken]), rowCount; scalars: experts, perToken.
 */
export function expertMlpPlan(args: usize, begin: i32, end: i32, scratch: usize): void {
  const ids = argPointer(args, 0);
  const offsets = argPointer(args, 1);
  const experts = argInt(args, 3);
  const pairs = load<i32>(argPointer(args, 2)) * argInt(args, 4);
  if (begin >= end) return;
  memory.fill(offsets, 0, <usize>(experts + 1) << 2);
  for (let pair = 0; pair < pairs; pair++) {
    const id = load<i32>(ids + (<usize>pair << 2));
    if (<u32>id >= <u32>experts) continue;
    const next = offsets + (<usize>(id + 1) << 2);
    store<i32>(next, load<i32>(next) + 1);
  }
  for (let at = offsets, last = offsets + (<usize>experts << 2); at < last; at += 4) {
    store<i32>(at, load<i32>(at) + load<i32>(at, 4), 4);
  }
  memory.copy(scratch, offsets, <usize>experts << 2);
  const order = offsets + (<usize>(experts + 1) << 2);
  for (let pair = 0; pair < pairs; pair++) {
    const id = load<i32>(ids + (<usize>pair << 2));
    if (<u32>id >= <u32>experts) continue;
    const cursor = scratch + (<usize>id << 2);
    const position = load<i32>(cursor);
    store<i32>(cursor, position + 1);
    store<i32>(order + (<usize>position << 2), pair);
  }
}

/** Addresses of the rows of x that `count` pairs from `order` on read: row pair / `share`. */
function listPairs(scratch: usize, x: usize, stride: usize, order: usize, count: i32, share: i32): void {
  for (let i: usize = 0; i < <usize>count << 2; i += 4) {
    store<u32>(scratch + i, <u32>(x + <usize>(load<i32>(order + i) / share) * stride));
  }
}

/** silu(gate) · up of `outputs` outputs for the `count` pairs from `order` on; `out` is that of pair 0. */
function gateUpPairs(
  args: usize, order: usize, count: i32, gate: usize, up: usize, outputs: i32, out: usize, scratch: usize,
): void {
  const columns = argInt(args, 5);
  const dtype = argInt(args, 7);
  const rowBytes = rowBytesOf(dtype, columns);
  listPairs(scratch, argPointer(args, 0), <usize>columns << 2, order, count, argInt(args, 9));
  multiplyPanel(dtype, gate, rowBytes, outputs, columns, count, scratch, scratch + RESULT);
  multiplyPanel(dtype, up, rowBytes, outputs, columns, count, scratch, scratch + SECOND_RESULT);
  for (let i: usize = 0; i < <usize>count; i++) {
    const target = out + ((<usize>load<i32>(order + (i << 2)) * <usize>argInt(args, 6)) << 2);
    const row = scratch + i * resultStride(outputs);
    for (let at: usize = 0; at < <usize>outputs << 2; at += 16) {
      v128.store(target + at, f32x4.mul(siluLanes(v128.load(row + at, RESULT)), v128.load(row + at, SECOND_RESULT)));
    }
  }
}

/**
 * silu(x · gateᵀ) · (x · upᵀ) of each pair's expert. Items are panels of outputs, experts within: so neighbouring items
 * weigh alike however few experts are chosen. Buffers: x, gate, up, plan, out [rows · perToken, outputs]; scalars:
 * inputs, outputs, dtype, experts, perToken, expertRows (weight rows from one expert to the next).
 */
export function expertMlpGateUp(args: usize, begin: i32, end: i32, scratch: usize): void {
  const experts = argInt(args, 8);
  const plan = argPointer(args, 3);
  const rowBytes = rowBytesOf(argInt(args, 7), argInt(args, 5));
  for (let item = begin; item < end; item++) {
    const expert = <usize>(item % experts);
    const start = load<i32>(plan + (expert << 2));
    const last = load<i32>(plan + (expert << 2), 4);
    const first = (item / experts) * ITEM_OUTPUTS;
    const outputs = min(ITEM_OUTPUTS, argInt(args, 6) - first);
    const offset = (expert * <usize>argInt(args, 10) + <usize>first) * rowBytes;
    const out = argPointer(args, 4) + (<usize>first << 2);
    for (let pair = start; pair < last; pair += PANEL_ROWS) {
      const order = plan + (<usize>(experts + 1 + pair) << 2);
      const count = min(PANEL_ROWS, last - pair);
      gateUpPairs(args, order, count, argPointer(args, 1) + offset, argPointer(args, 2) + offset, outputs, out, scratch);
    }
  }
}

/** `outputs` outputs of the down projection for the `count` pairs from `order` on; `out` is that of pair 0. */
function downPairs(args: usize, order: usize, count: i32, down: usize, outputs: i32, out: usize, scratch: usize): void {
  const columns = argInt(args, 4);
  const dtype = argInt(args, 6);
  listPairs(scratch, argPointer(args, 0), <usize>columns << 2, order, count, 1);
  multiplyPanel(dtype, down, rowBytesOf(dtype, columns), outputs, columns, count, scratch, scratch + RESULT);
  for (let i: usize = 0; i < <usize>count; i++) {
    const target = out + ((<usize>load<i32>(order + (i << 2)) * <usize>argInt(args, 5)) << 2);
    memory.copy(target, scratch + RESULT + i * resultStride(outputs), <usize>outputs << 2);
  }
}

/**
 * x · downᵀ of each pair's expert; items as in `expertMlpGateUp`. Buffers: x [rows · perToken, inputs], down, plan, out
 * [rows · perToken, outputs]; scalars: inputs, outputs, dtype, experts.
 */
export function expertMlpDown(args: usize, begin: i32, end: i32, scratch: usize): void {
  const experts = argInt(args, 7);
  const plan = argPointer(args, 2);
  const rowBytes = rowBytesOf(argInt(args, 6), argInt(args, 4));
  for (let item = begin; item < end; item++) {
    const expert = <usize>(item % experts);
    const start = load<i32>(plan + (expert << 2));
    const last = load<i32>(plan + (expert << 2), 4);
    const first = (item / experts) * ITEM_OUTPUTS;
    const outputs = min(ITEM_OUTPUTS, argInt(args, 5) - first);
    const down = argPointer(args, 1) + (expert * <usize>argInt(args, 5) + <usize>first) * rowBytes;
    const out = argPointer(args, 3) + (<usize>first << 2);
    for (let pair = start; pair < last; pair += PANEL_ROWS) {
      const order = plan + (<usize>(experts + 1 + pair) << 2);
      downPairs(args, order, min(PANEL_ROWS, last - pair), down, outputs, out, scratch);
    }
  }
}

/**
 * out = or += scale · Σ weight · value over a row's choices, in their order. Items are rows. Buffers: values
 * [rows · perToken, width], ids, weights, out, rowCount; scalars: width, perToken, experts, mode (1 accumulates), scale.
 */
export function expertMlpCombine(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const rows = min(end, load<i32>(argPointer(args, 4)));
  const rowBytes = <usize>argInt(args, 5) << 2;
  const perToken = argInt(args, 6);
  const scale = f32x4.splat(argFloat(args, 9));
  for (let row = begin; row < rows; row++) {
    const choices = <usize>(row * perToken) << 2;
    const ids = argPointer(args, 1) + choices;
    const weights = argPointer(args, 2) + choices;
    const values = argPointer(args, 0) + <usize>(row * perToken) * rowBytes;
    const out = argPointer(args, 3) + <usize>row * rowBytes;
    for (let at: usize = 0; at < rowBytes; at += 16) {
      let sum = f32x4.splat(0);
      for (let i: usize = 0; i < <usize>perToken; i++) {
        if (load<u32>(ids + (i << 2)) >= <u32>argInt(args, 7)) continue;
        sum = multiplyAdd(v128.load32_splat(weights + (i << 2)), v128.load(values + i * rowBytes + at), sum);
      }
      sum = f32x4.mul(sum, scale);
      if (argInt(args, 8)) sum = f32x4.add(sum, v128.load(out + at));
      v128.store(out + at, sum);
    }
  }
}
