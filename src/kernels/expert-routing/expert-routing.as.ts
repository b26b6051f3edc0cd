import { argFloat, argInt, argPointer } from "../common/simd.as";

/** Scratch: f64 scores, f64 values to choose by, f64 group values, each of at most this many. */
const MAX_EXPERTS: usize = 4096;

/** e^x in float64 to about 1 ulp for −700 < x < 700: Taylor to x¹³ over |x| ≤ ln 2 / 2. */
function exponential(x: f64): f64 {
  x = max<f64>(min<f64>(x, 700), -700);
  const n = nearest<f64>(x * 1.4426950408889634);
  const r = x - n * 0.6931471803691238 - n * 1.9082149292705877e-10;
  let sum: f64 = 1;
  for (let i: f64 = 13; i >= 1; i -= 1) sum = 1 + (sum * r) / i;
  return sum * reinterpret<f64>((<i64>n + 1023) << 52);
}

function scoreSoftmax(logits: usize, count: i32, scores: usize): void {
  let largest = <f64>load<f32>(logits);
  for (let i = 1; i < count; i++) largest = max<f64>(largest, <f64>load<f32>(logits + (<usize>i << 2)));
  let sum: f64 = 0;
  for (let i = 0; i < count; i++) {
    const value = exponential(<f64>load<f32>(logits + (<usize>i << 2)) - largest);
    store<f64>(scores + (<usize>i << 3), value);
    sum += value;
  }
  for (let i = 0; i < count; i++) {
    const at = scores + (<usize>i << 3);
    store<f64>(at, load<f64>(at) / sum);
  }
}

function scoreSigmoid(logits: usize, count: i32, scores: usize): void {
  for (let i = 0; i < count; i++) {
    const logit = <f64>load<f32>(logits + (<usize>i << 2));
    store<f64>(scores + (<usize>i << 3), 1 / (1 + exponential(-logit)));
  }
}

/** Index of the largest of `count` values, the lowest among equals; a taken value is NaN and comes last. */
function takeBest(values: usize, count: i32): i32 {
  let best = -1;
  let largest: f64 = 0;
  for (let i = 0; i < count; i++) {
    const value = load<f64>(values + (<usize>i << 3));
    if (value != value || (best >= 0 && value <= largest)) continue;
    best = i;
    largest = value;
  }
  return best < 0 ? 0 : best;
}

/** The largest value of a group, or the sum of its largest two. */
function groupValue(values: usize, size: i32, summed: i32): f64 {
  let first = -Infinity;
  let second = -Infinity;
  for (let i = 0; i < size; i++) {
    const value = load<f64>(values + (<usize>i << 3));
    if (value > first) {
      second = first;
      first = value;
    } else if (value > second) second = value;
  }
  return summed > 1 && size > 1 ? first + second : first;
}

/** Values of experts outside the best groups become −∞. */
function keepBestGroups(values: usize, count: i32, groups: i32, kept: i32, summed: i32, groupValues: usize): void {
  const size = count / groups;
  for (let g = 0; g < groups; g++) {
    store<f64>(groupValues + (<usize>g << 3), groupValue(values + (<usize>(g * size) << 3), size, summed));
  }
  for (let i = 0; i < kept; i++) store<f64>(groupValues + (<usize>takeBest(groupValues, groups) << 3), NaN);
  for (let g = 0; g < groups; g++) {
    const value = load<f64>(groupValues + (<usize>g << 3));
    if (value != value) continue;
    for (let i = g * size; i < (g + 1) * size; i++) store<f64>(values + (<usize>i << 3), -Infinity);
  }
}

function routeRow(args: usize, logits: usize, ids: usize, weights: usize, scratch: usize): void {
  const count = argInt(args, 5);
  const perToken = argInt(args, 6);
  const values = scratch + (MAX_EXPERTS << 3);
  if (argInt(args, 7) == 0) scoreSoftmax(logits, count, scratch);
  else scoreSigmoid(logits, count, scratch);
  for (let i: usize = 0; i < <usize>count; i++) {
    const bias = argInt(args, 13) ? <f64>load<f32>(argPointer(args, 1) + (i << 2)) : 0;
    store<f64>(values + (i << 3), load<f64>(scratch + (i << 3)) + bias);
  }
  const selection = argInt(args, 8);
  if (selection != 0) {
    keepBestGroups(values, count, argInt(args, 9), argInt(args, 10), selection, values + (MAX_EXPERTS << 3));
  }
  let sum: f64 = 0;
  for (let i: usize = 0; i < <usize>perToken; i++) {
    const expert = takeBest(values, count);
    store<f64>(values + (<usize>expert << 3), NaN);
    store<i32>(ids + (i << 2), expert);
    sum += load<f64>(scratch + (<usize>expert << 3));
  }
  const divisor = argInt(args, 11) ? sum + 1e-20 : 1;
  for (let i: usize = 0; i < <usize>perToken; i++) {
    const score = load<f64>(scratch + (<usize>load<i32>(ids + (i << 2)) << 3));
    store<f32>(weights + (i << 2), <f32>((score / divisor) * <f64>argFloat(args, 12)));
  }
}

/**
 * Items are rows. Buffers: logits, bias, ids, weights, rowCount; scalars: experts, perToken, scoring (0 softmax,
 * 1 sigmoid), selection (0 greedy, 1 group-max, 2 group-top2), groups, groupsPerToken, normalise, scale, hasBias.
 */
export function expertRouting(args: usize, begin: i32, end: i32, scratch: usize): void {
  const rows = min(end, load<i32>(argPointer(args, 4)));
  const logitBytes = <usize>argInt(args, 5) << 2;
  const outBytes = <usize>argInt(args, 6) << 2;
  for (let row = <usize>begin; <i32>row < rows; row++) {
    const out = row * outBytes;
    routeRow(
      args,
      argPointer(args, 0) + row * logitBytes,
      argPointer(args, 2) + out,
      argPointer(args, 3) + out,
      scratch,
    );
  }
}
