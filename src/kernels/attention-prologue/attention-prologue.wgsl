// A workgroup takes one token. Buffers: qkv, positions, rotaryTable, slots, keys, values, qOut, rowCount; scalars: heads, kvHeads, width,
// dtype, pageSize, cacheRows. KV_DTYPE: 0 f32, 1 f16, 2 bf16. Invocations have two neighbouring channels, a word of a 16-bit cache.
#include "../common/grid.wgsl"
#include "../common/narrow.wgsl"

@group(0) @binding(0) var<storage, read> qkv: array<vec2f>;
@group(0) @binding(1) var<storage, read> positions: array<i32>;
@group(0) @binding(2) var<storage, read> rotaryTable: array<vec2f>;
@group(0) @binding(3) var<storage, read> slots: array<i32>;
@group(0) @binding(4) var<storage, read_write> keys: array<Stored>;
@group(0) @binding(5) var<storage, read_write> values: array<Stored>;
@group(0) @binding(6) var<storage, read_write> qOut: array<vec2f>;
@group(0) @binding(7) var<storage, read> rowCount: array<i32>;

#if KV_DTYPE == 0
alias Stored = vec2f;
fn stored(pair: vec2f) -> Stored { return pair; }
#endif
#if KV_DTYPE == 1
alias Stored = u32;
fn stored(pair: vec2f) -> Stored { return narrowF16(pair.x) | (narrowF16(pair.y) << 16u); }
#endif
#if KV_DTYPE == 2
alias Stored = u32;
fn stored(pair: vec2f) -> Stored { return narrowBf16(pair.x) | (narrowBf16(pair.y) << 16u); }
#endif

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = gridIndex(group);
  if (row >= scalars.grid || i32(row) >= rowCount[0]) { return; }
  let heads = u32(scalars.heads);
  let kvHeads = u32(scalars.kvHeads);
  let pageSize = u32(scalars.pageSize);
  // Pairs of channels of a head, and of the half that is rotated with the other.
  let pairs = u32(scalars.width) / 2u;
  let half = pairs / 2u;
  let slot = u32(slots[row]);
  let appends = slot < u32(scalars.cacheRows);
  let entry = slot / pageSize * kvHeads * pageSize + slot % pageSize;
  let source = row * (heads + 2u * kvHeads) * pairs;
  let angles = u32(positions[row]) * pairs;
  for (var i = local; i < (heads + kvHeads) * half; i += 256u) {
    let head = i / half;
    let at = i % half;
    if (head >= heads && !appends) { continue; }
    let a = qkv[source + head * pairs + at];
    let b = qkv[source + head * pairs + half + at];
    let cosine = rotaryTable[angles + at];
    let sine = rotaryTable[angles + half + at];
    let low = a * cosine - b * sine;
    let high = b * cosine + a * sine;
    if (head < heads) {
      let to = (row * heads + head) * pairs + at;
      qOut[to] = low;
      qOut[to + half] = high;
    } else {
      let to = (entry + (head - heads) * pageSize) * pairs + at;
      keys[to] = stored(low);
      keys[to + half] = stored(high);
    }
  }
  if (!appends) { return; }
  for (var i = local; i < kvHeads * pairs; i += 256u) {
    values[(entry + i / pairs * pageSize) * pairs + i % pairs] = stored(qkv[source + (heads + kvHeads) * pairs + i]);
  }
}
