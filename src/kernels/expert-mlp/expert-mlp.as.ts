import { dotRows4, dotTile2x4, packRows, rowBytesOf } from "../common/gemm.as";
import { siluLanes } from "../common/silu.as";
import { argFloat, argInt, argPointer, multiplyAdd } from "../common/simd.as";

/** Outputs of an expert that one item computes; expert-mlp.ts holds the same number. */
const PANEL: i32 = 16;

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

/** silu(gate) · up of four outputs for one pair, the weights as stored. */
function gateUpOne(args: usize, x: usize, gate: usize, up: usize, out: usize, first: i32, last: i32): void {
  const columns = argInt(args, 5);
  const dtype = argInt(args, 7);
  const rowBytes = rowBytesOf(dtype, columns);
  for (let column = <usize>first; <i32>column < last; column += 4) {
    const g = dotRows4(dtype, x, gate + column * rowBytes, rowBytes, 4, columns);
    const u = dotRows4(dtype, x, up + column * rowBytes, rowBytes, 4, columns);
    v128.store(out + (column << 2), f32x4.mul(siluLanes(g), u));
  }
}

/** The same for `count` pairs, two by two: the weights become packed f32 tiles once. */
function gateUpMany(
  args: usize,
  order: usize,
  count: i32,
  gate: usize,
  up: usize,
  first: i32,
  last: i32,
  scratch: usize,
): void {
  const columns = argInt(args, 5);
  const dtype = argInt(args, 7);
  const perToken = argInt(args, 9);
  const rowBytes = rowBytesOf(dtype, columns);
  const tileBytes = <usize>columns << 4;
  const packed = scratch + 64;
  let tile = packed;
  for (let column = <usize>first; <i32>column < last; column += 4) {
    packRows(dtype, gate + column * rowBytes, rowBytes, 4, columns, tile);
    packRows(dtype, up + column * rowBytes, rowBytes, 4, columns, tile + tileBytes);
    tile += tileBytes << 1;
  }
  const x = argPointer(args, 0);
  const xStride = <usize>columns << 2;
  const out = argPointer(args, 4);
  const outStride = <usize>argInt(args, 6) << 2;
  for (let i = 0; i < count; i += 2) {
    const pair0 = load<i32>(order + (<usize>i << 2));
    const pair1 = load<i32>(order + (<usize>min(i + 1, count - 1) << 2));
    const x0 = x + <usize>(pair0 / perToken) * xStride;
    const x1 = x + <usize>(pair1 / perToken) * xStride;
    tile = packed;
    for (let column = <usize>first; <i32>column < last; column += 4) {
      dotTile2x4(x0, x1, tile, columns, scratch);
      dotTile2x4(x0, x1, tile + tileBytes, columns, scratch + 32);
      const upper = f32x4.mul(siluLanes(v128.load(scratch)), v128.load(scratch, 32));
      const lower = f32x4.mul(siluLanes(v128.load(scratch, 16)), v128.load(scratch, 48));
      v128.store(out + <usize>pair0 * outStride + (column << 2), upper);
      v128.store(out + <usize>pair1 * outStride + (column << 2), lower);
      tile += tileBytes << 1;
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
  const expertBytes = <usize>argInt(args, 10) * rowBytesOf(argInt(args, 7), argInt(args, 5));
  for (let item = begin; item < end; item++) {
    const expert = <usize>(item % experts);
    const start = load<i32>(plan + (expert << 2));
    const count = load<i32>(plan + (expert << 2), 4) - start;
    if (count == 0) continue;
    const first = (item / experts) * PANEL;
    const last = min(first + PANEL, argInt(args, 6));
    const gate = argPointer(args, 1) + expert * expertBytes;
    const up = argPointer(args, 2) + expert * expertBytes;
    const order = plan + (<usize>(experts + 1 + start) << 2);
    if (count == 1) {
      const pair = load<i32>(order);
      const x = argPointer(args, 0) + ((<usize>(pair / argInt(args, 9)) * <usize>argInt(args, 5)) << 2);
      const out = argPointer(args, 4) + ((<usize>pair * <usize>argInt(args, 6)) << 2);
      gateUpOne(args, x, gate, up, out, first, last);
    } else gateUpMany(args, order, count, gate, up, first, last, scratch);
  }
}

/** Outputs `first`…`last` of the down projection for `count` pairs of one expert. */
function downPanel(args: usize, order: usize, count: i32, down: usize, first: i32, last: i32, scratch: usize): void {
  const columns = argInt(args, 4);
  const dtype = argInt(args, 6);
  const rowBytes = rowBytesOf(dtype, columns);
  const tileBytes = <usize>columns << 4;
  const packed = scratch + 64;
  const x = argPointer(args, 0);
  const xStride = <usize>columns << 2;
  const out = argPointer(args, 3);
  const outStride = <usize>argInt(args, 5) << 2;
  if (count == 1) {
    const pair = <usize>load<i32>(order);
    for (let column = <usize>first; <i32>column < last; column += 4) {
      const sums = dotRows4(dtype, x + pair * xStride, down + column * rowBytes, rowBytes, 4, columns);
      v128.store(out + pair * outStride + (column << 2), sums);
    }
    return;
  }
  let tile = packed;
  for (let column = <usize>first; <i32>column < last; column += 4) {
    packRows(dtype, down + column * rowBytes, rowBytes, 4, columns, tile);
    tile += tileBytes;
  }
  for (let i = 0; i < count; i += 2) {
    const pair0 = <usize>load<i32>(order + (<usize>i << 2));
    const pair1 = <usize>load<i32>(order + (<usize>min(i + 1, count - 1) << 2));
    tile = packed;
    for (let column = <usize>first; <i32>column < last; column += 4) {
      dotTile2x4(x + pair0 * xStride, x + pair1 * xStride, tile, columns, scratch);
      v128.store(out + pair0 * outStride + (column << 2), v128.load(scratch));
      v128.store(out + pair1 * outStride + (column << 2), v128.load(scratch, 16));
      tile += tileBytes;
    }
  }
}

/**
 * x · downᵀ of each pair's expert; items as in `expertMlpGateUp`. Buffers: x [rows · perToken, inputs], down, plan, out
 * [rows · perToken, outputs]; scalars: inputs, outputs, dtype, experts.
 */
export function expertMlpDown(args: usize, begin: i32, end: i32, scratch: usize): void {
  const experts = argInt(args, 7);
  const plan = argPointer(args, 2);
  const expertBytes = <usize>argInt(args, 5) * rowBytesOf(argInt(args, 6), argInt(args, 4));
  for (let item = begin; item < end; item++) {
    const expert = <usize>(item % experts);
    const start = load<i32>(plan + (expert << 2));
    const count = load<i32>(plan + (expert << 2), 4) - start;
    if (count == 0) continue;
    const first = (item / experts) * PANEL;
    const last = min(first + PANEL, argInt(args, 5));
    const order = plan + (<usize>(experts + 1 + start) << 2);
    downPanel(args, order, count, argPointer(args, 1) + expert * expertBytes, first, last, scratch);
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
