// Draws one token id a row. Workgroups are rows. A weight counts in 2⁻³² units, as a sum of two words, so that sums are exact in any order
// and the draw is the CPU's wherever the weights are. Invocations have runs of neighbouring ids each.
// WORKGROUP: 256 and up. SUBGROUPS: subgroups of SUBGROUP find the largest logit.
// Buffers: logits, params (sampling.ts), out, workspace (weights), rowCount; scalars: vocab, validVocab.
#include "../common/grid.wgsl"

struct Params {
  temperature: f32, topK: i32, topP: f32, minP: f32, seedLow: u32, seedHigh: u32, step: u32, none: u32,
}

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> params: array<Params>;
@group(0) @binding(2) var<storage, read_write> out: array<i32>;
@group(0) @binding(3) var<storage, read_write> weights: array<f32>;
@group(0) @binding(4) var<storage, read> rowCount: array<i32>;

const BUCKETS = 256u;
/// Neighbouring invocations that one of them sums up.
const SPAN = 32u;
const SPANS = WORKGROUP / SPAN;
const NOTHING = 0xffffffffu;

/// High word, low word.
alias Wide = vec2u;

var<workgroup> bucketHigh: array<atomic<u32>, BUCKETS>;
var<workgroup> bucketLow: array<atomic<u32>, BUCKETS>;
var<workgroup> runs: array<Wide, WORKGROUP>;
var<workgroup> spans: array<Wide, SPANS>;
var<workgroup> keys: array<u32, WORKGROUP>;
var<workgroup> places: array<u32, WORKGROUP>;
var<workgroup> sharedWide: Wide;
var<workgroup> sharedWord: u32;
var<workgroup> sharedParams: Params;

struct Row { base: u32, begin: u32, end: u32, local: u32 }

/// Which ids are kept: keys above `key`, and the first `ties` of those that have it.
struct Kept { key: u32, ties: u32 }

fn plus(a: Wide, b: Wide) -> Wide {
  let low = a.y + b.y;
  return Wide(a.x + b.x + select(0u, 1u, low < a.y), low);
}

fn minus(a: Wide, b: Wide) -> Wide {
  return Wide(a.x - b.x - select(0u, 1u, a.y < b.y), a.y - b.y);
}

fn isLess(a: Wide, b: Wide) -> bool {
  return a.x < b.x || (a.x == b.x && a.y < b.y);
}

fn multiply(a: u32, b: u32) -> Wide {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let first = (a >> 16u) * (b & 0xffffu);
  let second = (a & 0xffffu) * (b >> 16u);
  let middle = (low >> 16u) + (first & 0xffffu) + (second & 0xffffu);
  return Wide((a >> 16u) * (b >> 16u) + (first >> 16u) + (second >> 16u) + (middle >> 16u), a * b);
}

/// An unsigned integer in the order of the logits; NaN comes last, the zeros are equal.
fn orderKey(bits: u32) -> u32 {
  let magnitude = bits & 0x7fffffffu;
  let key = select(bits | 0x80000000u, ~bits, bits != magnitude);
  return select(select(key, 0x80000000u, magnitude == 0u), 0u, magnitude > 0x7f800000u);
}

fn keyAt(row: Row, id: u32) -> u32 {
  return orderKey(bitcast<u32>(logits[row.base + id]));
}

/// A weight of 0 … 1 in 2⁻³² units: 1 is 2³².
fn massOf(weight: f32) -> Wide {
  if (weight >= 1.0) { return Wide(1u, 0u); }
  return Wide(0u, u32(weight * 4294967296.0));
}

/// e^x for x ≤ 0 (Cephes expf); 0 below −87.
fn exponential(x: f32) -> f32 {
  let n = round(x * 1.44269504);
  let r = fma(n, 2.12194440e-4, fma(n, -0.693359375, x));
  var p = 1.9875691500e-4;
  p = fma(p, r, 1.3981999507e-3);
  p = fma(p, r, 8.3334519073e-3);
  p = fma(p, r, 4.1665795894e-2);
  p = fma(p, r, 1.6666665459e-1);
  p = fma(p, r, 0.5);
  p = fma(p, r * r, r) + 1.0;
  return p * bitcast<f32>((i32(n) + 127) << 23u);
}

struct Best { key: u32, place: u32 }

fn better(best: Best, key: u32, place: u32) -> Best {
  let isBetter = key > best.key;
  return Best(select(best.key, key, isBetter), select(best.place, place, isBetter));
}

/// The id of the largest logit, the lowest among equals; 0 when all are NaN.
fn argmax(row: Row) -> u32 {
  var best = Best(0u, 0u);
  var id = row.local;
  let count = u32(scalars.validVocab);
  // Sixteen logits under way at once: one workgroup has nothing else to hide the memory's latency with.
  for (; id + 15u * WORKGROUP < count; id += 16u * WORKGROUP) {
#for i 16
    let bits$i = bitcast<u32>(logits[row.base + id + $iu * WORKGROUP]);
#endfor
#for i 16
    best = better(best, orderKey(bits$i), id + $iu * WORKGROUP);
#endfor
  }
  for (; id < count; id += WORKGROUP) { best = better(best, keyAt(row, id), id); }
#if SUBGROUPS
  // The largest key of the subgroup, then the lowest id that has it.
  let key = subgroupMax(best.key);
  let place = subgroupMin(select(NOTHING, best.place, best.key == key));
  let lane = row.local % SUBGROUP;
  if (lane == 0u) {
    keys[row.local / SUBGROUP] = key;
    places[row.local / SUBGROUP] = place;
  }
  workgroupBarrier();
  if (row.local == 0u) {
    var all = Best(0u, 0u);
    for (var i = 0u; i < WORKGROUP / SUBGROUP; i++) {
      if (keys[i] > all.key || (keys[i] == all.key && places[i] < all.place)) { all = Best(keys[i], places[i]); }
    }
    sharedWord = select(all.place, 0u, all.key == 0u);
  }
  return workgroupUniformLoad(&sharedWord);
#else
  keys[row.local] = best.key;
  places[row.local] = best.place;
  for (var span = WORKGROUP / 2u; span > 0u; span /= 2u) {
    workgroupBarrier();
    if (row.local < span) {
      let other = row.local + span;
      if (keys[other] > keys[row.local] ||
          (keys[other] == keys[row.local] && places[other] < places[row.local])) {
        keys[row.local] = keys[other];
        places[row.local] = places[other];
      }
    }
  }
  workgroupBarrier();
  if (row.local == 0u) { sharedWord = places[0]; }
  return workgroupUniformLoad(&sharedWord);
#endif
}

/// The sum over the workgroup, the same for every invocation; `runs` then holds, for each, what comes before its own.
fn scan(own: Wide, local: u32) -> Wide {
  workgroupBarrier();
  runs[local] = own;
  workgroupBarrier();
  if (local < SPANS) {
    var sum = Wide(0u, 0u);
    for (var i = local * SPAN; i < (local + 1u) * SPAN; i++) {
      let one = runs[i];
      runs[i] = sum;
      sum = plus(sum, one);
    }
    spans[local] = sum;
  }
  workgroupBarrier();
  if (local == 0u) {
    var sum = Wide(0u, 0u);
    for (var i = 0u; i < SPANS; i++) {
      let one = spans[i];
      spans[i] = sum;
      sum = plus(sum, one);
    }
    sharedWide = sum;
  }
  let all = workgroupUniformLoad(&sharedWide);
  runs[local] = plus(runs[local], spans[local / SPAN]);
  return all;
}

/// Adds to a bucket; the sum of its two words is exact in any order.
fn addTo(bucket: u32, mass: Wide) {
  let before = atomicAdd(&bucketLow[bucket], mass.y);
  let carry = select(0u, 1u, before + mass.y < before);
  if (mass.x + carry > 0u) { atomicAdd(&bucketHigh[bucket], mass.x + carry); }
}

/// Radix select: the key at which the tokens from the best on reach `wanted`, by mass or by number; `sharedWide` is the part due there.
fn findBoundary(row: Row, wanted: Wide, byMass: bool) -> u32 {
  var prefix = 0u;
  var due = wanted;
  for (var digit = 0u; digit < 4u; digit++) {
    let shift = 24u - 8u * digit;
    if (row.local < BUCKETS) {
      atomicStore(&bucketHigh[row.local], 0u);
      atomicStore(&bucketLow[row.local], 0u);
    }
    workgroupBarrier();
    for (var id = row.local; id < u32(scalars.validVocab); id += WORKGROUP) {
      let key = keyAt(row, id);
      if (digit > 0u && (key >> (shift + 8u)) != prefix) { continue; }
      let bucket = (key >> shift) & 255u;
      if (byMass) { addTo(bucket, massOf(weights[row.base + id])); } else { addTo(bucket, Wide(0u, 1u)); }
    }
    workgroupBarrier();
    if (row.local == 0u) {
      var bucket = BUCKETS - 1u;
      for (; bucket > 0u; bucket--) {
        let held = Wide(atomicLoad(&bucketHigh[bucket]), atomicLoad(&bucketLow[bucket]));
        if (!isLess(held, due)) { break; }
        due = minus(due, held);
      }
      sharedWide = due;
      sharedWord = (prefix << 8u) | bucket;
    }
    due = workgroupUniformLoad(&sharedWide);
    prefix = workgroupUniformLoad(&sharedWord);
  }
  return prefix;
}

/// How many of the equal tokens at `key` make up `mass`.
fn tiesFor(row: Row, key: u32, mass: Wide) -> u32 {
  if (row.local == 0u) { sharedWord = NOTHING; }
  workgroupBarrier();
  for (var id = row.begin; id < row.end; id++) {
    // All of them have the same weight, so that any one will do.
    if (keyAt(row, id) == key) { places[row.local] = id; keys[row.local] = 1u; break; }
    keys[row.local] = 0u;
  }
  if (row.begin >= row.end) { keys[row.local] = 0u; }
  workgroupBarrier();
  if (row.local == 0u) {
    var ties = 1u;
    for (var i = 0u; i < WORKGROUP; i++) {
      if (keys[i] == 0u) { continue; }
      let each = massOf(weights[row.base + places[i]]);
      ties = 1u;
      var sum = each;
      // At most validVocab steps; equal tokens at a boundary are few in practice.
      while (isLess(sum, mass) && ties < u32(scalars.validVocab) && (each.x | each.y) != 0u) {
        sum = plus(sum, each);
        ties++;
      }
      break;
    }
    sharedWord = ties;
  }
  return workgroupUniformLoad(&sharedWord);
}

/// Equal tokens at the boundary before this invocation's run.
fn tiesBefore(row: Row, kept: Kept) -> u32 {
  var count = 0u;
  for (var id = row.begin; id < row.end; id++) { count += select(0u, 1u, keyAt(row, id) == kept.key); }
  _ = scan(Wide(0u, count), row.local);
  return runs[row.local].y;
}

/// The mass of the kept tokens of this invocation's run, or the id at which the running mass passes `draw`.
fn walk(row: Row, kept: Kept, minP: f32, before: u32, start: Wide, draw: Wide, isDraw: bool) -> Wide {
  var ties = select(kept.ties - before, 0u, before >= kept.ties);
  var mass = start;
  for (var id = row.begin; id < row.end; id++) {
    let key = keyAt(row, id);
    if (key < kept.key) { continue; }
    if (key == kept.key) {
      if (ties == 0u) { continue; }
      ties--;
    }
    let weight = weights[row.base + id];
    if (weight < minP) { continue; }
    mass = plus(mass, massOf(weight));
    if (isDraw && isLess(draw, mass)) { return Wide(1u, id); }
  }
  return select(mass, Wide(0u, 0u), isDraw);
}

/// First word of Philox4x32-10 (Salmon et al. 2011) at counter (step, 0, 0, 0).
fn philox(step: u32, seedLow: u32, seedHigh: u32) -> u32 {
  var counter = vec4u(step, 0u, 0u, 0u);
  var key = vec2u(seedLow, seedHigh);
  for (var round = 0u; round < 10u; round++) {
    let a = multiply(counter.x, 0xd2511f53u);
    let b = multiply(counter.z, 0xcd9e8d57u);
    counter = vec4u(b.x ^ counter.y ^ key.x, b.y, a.x ^ counter.w ^ key.y, a.y);
    key += vec2u(0x9e3779b9u, 0xbb67ae85u);
  }
  return counter.x;
}

/// What a logit weighs beside the largest, which weighs 1; −∞ and NaN weigh nothing.
fn weightOf(logit: f32, largest: f32, temperature: f32) -> f32 {
  let x = (logit - largest) / temperature;
  let isFinite = (bitcast<u32>(logit) & 0x7f800000u) != 0x7f800000u;
  return select(0.0, exponential(max(x, -87.0)), isFinite && x >= -87.0);
}

fn drawToken(row: Row, drawParams: Params, largest: f32) -> u32 {
  let count = u32(scalars.validVocab);
  var id = row.local;
  for (; id + 15u * WORKGROUP < count; id += 16u * WORKGROUP) {
#for i 16
    let logit$i = logits[row.base + id + $iu * WORKGROUP];
#endfor
#for i 16
    weights[row.base + id + $iu * WORKGROUP] = weightOf(logit$i, largest, drawParams.temperature);
#endfor
  }
  for (; id < count; id += WORKGROUP) {
    weights[row.base + id] = weightOf(logits[row.base + id], largest, drawParams.temperature);
  }
  storageBarrier();
  workgroupBarrier();
  var kept = Kept(0u, NOTHING);
  if (drawParams.topK > 0 && u32(drawParams.topK) < count) {
    kept.key = findBoundary(row, Wide(0u, u32(drawParams.topK)), false);
    kept.ties = workgroupUniformLoad(&sharedWide).y;
  }
  if (drawParams.topP < 1.0) {
    let before = tiesBefore(row, kept);
    let all = scan(walk(row, kept, 0.0, before, Wide(0u, 0u), Wide(0u, 0u), false), row.local);
    // ⌈all · topP⌉ in 2⁻²⁴ steps of topP, at least 1.
    let share = multiplyShare(all, drawParams.topP);
    let boundary = findBoundary(row, share, true);
    let rest = workgroupUniformLoad(&sharedWide);
    let ties = tiesFor(row, boundary, rest);
    kept = Kept(boundary, ties);
  }
  let before = tiesBefore(row, kept);
  let total = scan(walk(row, kept, drawParams.minP, before, Wide(0u, 0u), Wide(0u, 0u), false), row.local);
  let random = philox(drawParams.step, drawParams.seedLow, drawParams.seedHigh);
  let draw = plus(multiply(random, total.x), Wide(0u, multiply(random, total.y).x));
  let start = runs[row.local];
  if (row.local == 0u) { sharedWord = count - 1u; }
  workgroupBarrier();
  let found = walk(row, kept, drawParams.minP, before, start, draw, true);
  // The running mass passes the draw in one run alone: later ones start past it.
  if (found.x == 1u && !isLess(draw, start)) { sharedWord = found.y; }
  return workgroupUniformLoad(&sharedWord);
}

/// ⌈mass · share⌉ for a share of 0 … 1 (a float32 has 24 bits and an exponent), at least 1.
fn multiplyShare(mass: Wide, share: f32) -> Wide {
  if (share <= 0.0) { return Wide(0u, 1u); }
  let bits = bitcast<u32>(share);
  let exponent = (bits >> 23u) & 255u;
  let mantissa = (bits & 0x7fffffu) | 0x800000u;
  // share = mantissa · 2^(exponent − 150).
  let low = multiply(mass.y, mantissa);
  let high = plus(multiply(mass.x, mantissa), Wide(0u, low.x));
  // high : low.y is the product of 88 bits; shift it right by 150 − exponent.
  let shift = 150u - exponent;
  var words = vec3u(high.x, high.y, low.y);
  var lost = false;
  for (var i = 0u; i < min(shift, 96u); i++) {
    lost = lost || (words.z & 1u) == 1u;
    words = vec3u(words.x >> 1u, (words.y >> 1u) | (words.x << 31u), (words.z >> 1u) | (words.y << 31u));
  }
  var result = Wide(words.y, words.z);
  if (lost) { result = plus(result, Wide(0u, 1u)); }
  if (result.x == 0u && result.y == 0u) { result.y = 1u; }
  return result;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let index = gridIndex(group);
  if (local == 0u) { sharedWord = select(0u, u32(max(rowCount[0], 0)), index < scalars.grid); }
  if (index >= workgroupUniformLoad(&sharedWord)) { return; }
  let count = u32(scalars.validVocab);
  let run = (count + WORKGROUP - 1u) / WORKGROUP;
  let row = Row(index * u32(scalars.vocab), min(local * run, count), min((local + 1u) * run, count), local);
  if (local == 0u) { sharedParams = params[index]; }
  let drawParams = workgroupUniformLoad(&sharedParams);
  let best = argmax(row);
  if (local == 0u) { sharedWord = bitcast<u32>(logits[row.base + best]); }
  let largestBits = workgroupUniformLoad(&sharedWord);
  var id = best;
  // The largest is finite, or the choice is made: NaN and ±∞ have all exponent bits.
  if (drawParams.temperature > 0.0 && (largestBits & 0x7f800000u) != 0x7f800000u) {
    id = drawToken(row, drawParams, bitcast<f32>(largestBits));
  }
  if (local == 0u) { out[index] = i32(id); }
}
