// What precedes attention, in one launch where an adapter binds 11 buffers and in two where it binds 8: the first `appendItems`
// workgroups append a token's normed latent and rotated key to the cache, the others make queries.
//
// Constants: APPEND, QUERIES (0 none, 1 decode, 2 prefill); LATENT, ROPE, NOPE; INTERLEAVED, HAS_SCALE; LATENT_DTYPE of the cache
// (0 f32, 1 f16, 2 bf16, 3 fp8), DTYPE of the weights; TOKENS that a workgroup absorbs; LATENT_EACH = ⌈LATENT / WORKGROUP⌉,
// ROWS_EACH = ⌈NOPE · 16 / WORKGROUP⌉.
//
// A launch for one token takes as long as its chain of loads, so all that does not follow from another load is asked for first, weights
// before all else.
#include "../common/grid.wgsl"
#include "../common/narrow.wgsl"
#include "../common/weights.wgsl"
#include "../common/workgroup-sum.wgsl"

#if QUERIES
#if !IN_PLACE
@group(0) @binding(0) var<storage, read> q: array<f32>;
#endif
#if HAS_SCALE
@group(0) @binding(5) var<storage, read> queryScale: array<f32>;
#endif
#if QUERIES == 1
@group(0) @binding(8) var<storage, read> kvB: array<WeightWords>;
#endif
@group(0) @binding(9) var<storage, read_write> qOut: array<f32>;
#endif
#if APPEND
@group(0) @binding(1) var<storage, read> latent: array<f32>;
@group(0) @binding(2) var<storage, read> normWeight: array<f32>;
@group(0) @binding(6) var<storage, read> slots: array<u32>;
@group(0) @binding(7) var<storage, read_write> cache: array<u32>;
#endif
@group(0) @binding(3) var<storage, read> positions: array<u32>;
@group(0) @binding(4) var<storage, read> rotaryTable: array<f32>;
@group(0) @binding(10) var<storage, read> rowCount: array<i32>;

const HALF = ROPE / 2u;

/// What `channel` of a rotated vector is made of: itself, its partner, and the sign of the partner's sine.
struct Rotation { partner: u32, pair: u32, sign: f32 }

fn rotationOf(channel: u32) -> Rotation {
#if INTERLEAVED
  let isFirst = channel % 2u == 0u;
  return Rotation(select(channel - 1u, channel + 1u, isFirst), channel / 2u, select(1.0, -1.0, isFirst));
#else
  let isFirst = channel < HALF;
  return Rotation(select(channel - HALF, channel + HALF, isFirst), channel % HALF, select(1.0, -1.0, isFirst));
#endif
}

fn rotatedValue(value: f32, partner: f32, rotation: Rotation, position: u32) -> f32 {
  let table = position * ROPE + rotation.pair;
  return value * rotaryTable[table] + rotation.sign * partner * rotaryTable[table + HALF];
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let item = gridIndex(group);
  if (item >= scalars.grid) { return; }
  let rows = u32(max(rowCount[0], 0));
#if APPEND
  if (item < u32(scalars.appendItems)) {
    appendEntry(item, rows, local);
    return;
  }
#endif
#if QUERIES
  makeQueries(item - u32(scalars.appendItems), rows, local);
#endif
}

#if APPEND
const WIDTH = LATENT + ROPE;
var<workgroup> entry: array<f32, WIDTH>;
#if LATENT_DTYPE == 3
const FP8_GROUPS = LATENT / 128u;
var<workgroup> exponents: array<atomic<u32>, FP8_GROUPS>;
#endif

fn appendEntry(row: u32, rows: u32, local: u32) {
  let base = row * WIDTH;
  let slot = slots[row];
  let position = positions[row];
#for i LATENT_EACH
  let at$i = min(local + WORKGROUP * $iu, LATENT - 1u);
  let latent$i = latent[base + at$i];
  let weight$i = normWeight[at$i];
#endfor
  if (row >= rows || slot >= u32(scalars.cacheRows)) { return; }
  for (var c = local; c < ROPE; c += WORKGROUP) {
    let rotation = rotationOf(c);
    let rope = base + LATENT;
    entry[LATENT + c] = rotatedValue(latent[rope + c], latent[rope + rotation.partner], rotation, position);
  }
  var squares = 0.0;
#for i LATENT_EACH
  squares += select(0.0, latent$i * latent$i, local + WORKGROUP * $iu < LATENT);
#endfor
  let scale = 1.0 / sqrt(workgroupSum(squares, local) / f32(LATENT) + scalars.epsilon);
#for i LATENT_EACH
  if (local + WORKGROUP * $iu < LATENT) { entry[at$i] = latent$i * scale * weight$i; }
#endfor
#if LATENT_DTYPE == 3
  if (local < FP8_GROUPS) { atomicStore(&exponents[local], 0u); }
#endif
  workgroupBarrier();
  storeEntry(slot, local);
}

fn storeEntry(slot: u32, local: u32) {
#if LATENT_DTYPE == 0
  for (var c = local; c < WIDTH; c += WORKGROUP) { cache[slot * WIDTH + c] = bitcast<u32>(entry[c]); }
#endif
#if LATENT_DTYPE == 1
  for (var w = local; w < WIDTH / 2u; w += WORKGROUP) {
    cache[slot * (WIDTH / 2u) + w] = narrowF16(entry[2u * w]) | (narrowF16(entry[2u * w + 1u]) << 16u);
  }
#endif
#if LATENT_DTYPE == 2
  for (var w = local; w < WIDTH / 2u; w += WORKGROUP) {
    cache[slot * (WIDTH / 2u) + w] = narrowBf16(entry[2u * w]) | (narrowBf16(entry[2u * w + 1u]) << 16u);
  }
#endif
#if LATENT_DTYPE == 3
  for (var c = local; c < LATENT; c += WORKGROUP) {
    let magnitude = bitcast<u32>(entry[c]) & 0x7fffffffu;
    if (magnitude <= 0x7f800000u) { atomicMax(&exponents[c / 128u], magnitude); }
  }
  workgroupBarrier();
  let base = slot * (LATENT / 4u + FP8_GROUPS + ROPE / 2u);
  for (var w = local; w < LATENT / 4u; w += WORKGROUP) {
    // The scale is a power of two, so its inverse is exact.
    let inverse = bitcast<f32>((254u - scaleExponent(w / 32u)) << 23u);
    var word = 0u;
    for (var i = 0u; i < 4u; i++) { word |= narrowE4m3(entry[4u * w + i] * inverse) << (8u * i); }
    cache[base + w] = word;
  }
  if (local < FP8_GROUPS) { cache[base + LATENT / 4u + local] = scaleExponent(local) << 23u; }
  for (var w = local; w < ROPE / 2u; w += WORKGROUP) {
    let at = LATENT + 2u * w;
    cache[base + LATENT / 4u + FP8_GROUPS + w] = narrowBf16(entry[at]) | (narrowBf16(entry[at + 1u]) << 16u);
  }
#endif
}

#if LATENT_DTYPE == 3
/// Exponent bits of a group's scale, 2^ceil(log2(largest / 448)): fp8GroupScale of base/fp8-entry.ts.
fn scaleExponent(part: u32) -> u32 {
  let exponent = i32((atomicLoad(&exponents[part]) + 0x1fffffu) >> 23u) - 8;
  return u32(max(exponent, 1));
}
#endif
#endif

#if QUERIES
const QUERY = NOPE + ROPE;

fn queryAt(index: u32) -> f32 {
#if IN_PLACE
  return qOut[index];
#else
  return q[index];
#endif
}

fn scaleAt(position: u32) -> f32 {
#if HAS_SCALE
  return queryScale[position];
#else
  return 1.0;
#endif
}
#endif

#if QUERIES == 2
/// Items are (token, head): both vectors of a pair are read before either is written, so that it works in place.
fn makeQueries(item: u32, rows: u32, local: u32) {
  let row = item / u32(scalars.heads);
  if (row >= rows) { return; }
  let position = positions[row];
  let scale = scaleAt(position);
  let base = item * QUERY;
  for (var c = local; c < NOPE; c += WORKGROUP) { qOut[base + c] = queryAt(base + c) * scale; }
  for (var pair = local; pair < HALF; pair += WORKGROUP) {
#if INTERLEAVED
    let first = 2u * pair;
#else
    let first = pair;
#endif
    let rotation = rotationOf(first);
    let second = rotation.partner;
    let a = queryAt(base + NOPE + first);
    let b = queryAt(base + NOPE + second);
    qOut[base + NOPE + first] = rotatedValue(a, b, rotation, position) * scale;
    qOut[base + NOPE + second] = rotatedValue(b, a, rotationOf(second), position) * scale;
  }
}
#endif

#if QUERIES == 1
const QUADS = LATENT / 4u;
/// Vectors of four channels of a workgroup; its invocations share the rows of W_UK in ROW_SETS sets.
const CHUNK = 16u;
const ROW_SETS = WORKGROUP / CHUNK;

var<workgroup> scaled: array<f32, TOKENS * NOPE>;
var<workgroup> parts: array<vec4f, TOKENS * WORKGROUP>;

/// Items are (block of TOKENS tokens, head, chunk of 64 channels or, last, the rotated ones).
fn makeQueries(item: u32, rows: u32, local: u32) {
  let heads = u32(scalars.heads);
  let chunks = (QUADS + CHUNK - 1u) / CHUNK;
  let chunk = item % (chunks + 1u);
  let head = item / (chunks + 1u) % heads;
  let firstToken = item / ((chunks + 1u) * heads) * TOKENS;
  let count = min(TOKENS, rows - min(rows, firstToken));
  if (chunk == chunks) {
    rotateQueries(firstToken, count, head, local);
    return;
  }
  let quad = chunk * CHUNK + local % CHUNK;
  let rowSet = local / CHUNK;
  let base = head * (NOPE + u32(scalars.valueWidth));
#for j ROWS_EACH
  let weights$j = kvB[(base + min(rowSet + ROW_SETS * $ju, NOPE - 1u)) * QUADS + min(quad, QUADS - 1u)];
#endfor
  for (var at = local; at < TOKENS * NOPE; at += WORKGROUP) {
    // A token that is not there stands for one that is.
    let token = min(firstToken + at / NOPE, MOST - 1u);
    scaled[at] = queryAt((token * heads + head) * QUERY + at % NOPE) * scaleAt(positions[token]);
  }
  workgroupBarrier();
  var sums: array<vec4f, TOKENS>;
  for (var i = 0u; i < TOKENS; i++) { sums[i] = vec4f(0); }
#for j ROWS_EACH
  if (rowSet + ROW_SETS * $ju < NOPE) {
    let weights = widenWeights(weights$j);
    for (var i = 0u; i < TOKENS; i++) { sums[i] += scaled[i * NOPE + rowSet + ROW_SETS * $ju] * weights; }
  }
#endfor
  for (var i = 0u; i < TOKENS; i++) { parts[i * WORKGROUP + local] = sums[i]; }
  workgroupBarrier();
  for (var at = local; at < count * CHUNK; at += WORKGROUP) {
    let lane = at % CHUNK;
    let mine = chunk * CHUNK + lane;
    if (mine < QUADS) {
      var sum = vec4f(0);
      for (var s = 0u; s < WORKGROUP; s += CHUNK) { sum += parts[at / CHUNK * WORKGROUP + s + lane]; }
      let out = ((firstToken + at / CHUNK) * heads + head) * (LATENT + ROPE) + mine * 4u;
      for (var k = 0u; k < 4u; k++) { qOut[out + k] = sum[k]; }
    }
  }
}

fn rotateQueries(firstToken: u32, count: u32, head: u32, local: u32) {
  let heads = u32(scalars.heads);
  for (var at = local; at < count * ROPE; at += WORKGROUP) {
    let token = firstToken + at / ROPE;
    let c = at % ROPE;
    let rotation = rotationOf(c);
    let base = (token * heads + head) * QUERY + NOPE;
    let value = rotatedValue(queryAt(base + c), queryAt(base + rotation.partner), rotation, positions[token]);
    qOut[(token * heads + head) * (LATENT + ROPE) + LATENT + c] = value * scaleAt(positions[token]);
  }
}
#endif
