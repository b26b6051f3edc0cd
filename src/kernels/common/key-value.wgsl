// Attention over a paged cache of keys and values, [pages, kvHeads, page, WIDTH]. Query rows that share a key head are taken ROWS at a
// time. The kernel declares `lengths` and `batchCount`, and what it reads of q, `keys`, `values` and `table`; its scalars have tableWidth,
// sQ, heads, kvHeads, causal and window (0: none). Constants: WIDTH, PAGE_SIZE, KV_DTYPE (0 f32, 1 f16, 2 bf16), ROWS, COUNTED, and KEYS
// and VALUES for what is read.
#include "grid.wgsl"
#include "eight.wgsl"

const EIGHTS = WIDTH / 8u;

/// What a workgroup has to do: ROWS rows from `firstRow` on of those that read a key head.
struct Task { part: u32, sequence: u32, kvHead: u32, firstRow: u32 }

fn groupSize() -> u32 { return u32(scalars.heads / scalars.kvHeads); }
fn spanRows() -> u32 { return u32(scalars.sQ) * groupSize(); }

/// The task of grid item `item`, of (sequence, part, key head, block of rows).
fn taskOf(item: u32, parts: u32) -> Task {
  let blocks = (spanRows() + ROWS - 1u) / ROWS;
  let kvHeads = u32(scalars.kvHeads);
  return Task(item / (blocks * kvHeads) % parts, item / (blocks * kvHeads * parts), item / blocks % kvHeads, item % blocks * ROWS);
}

/// Where row `row` of a task's key head lies in [batch, sQ, heads].
fn placeOfRow(task: Task, row: u32) -> u32 {
  let group = groupSize();
  return (task.sequence * u32(scalars.sQ) + row / group) * u32(scalars.heads) + task.kvHead * group + row % group;
}

var<workgroup> sharedLength: i32;

/// Cached tokens of a sequence, −1 where it is not in use: the same for every invocation.
fn lengthOf(sequence: u32, isInside: bool, local: u32) -> i32 {
  if (local == 0u) {
    sharedLength = -1;
    if (isInside) { sharedLength = clamp(lengths[sequence], 0, scalars.tableWidth * PAGE_SIZE); }
#if COUNTED
    if (i32(sequence) >= batchCount[0]) { sharedLength = -1; }
#endif
  }
  return workgroupUniformLoad(&sharedLength);
}

/// Tokens that query token `token` sees: x … before y.
fn visibleTo(length: i32, token: u32) -> vec2u {
  let end = max(0, select(length, length - scalars.sQ + 1 + i32(token), scalars.causal == 1));
  return vec2u(u32(select(0, max(0, end - scalars.window), scalars.window > 0)), u32(end));
}

fn visibleToRow(length: i32, row: u32) -> vec2u {
  return visibleTo(length, min(row / groupSize(), u32(scalars.sQ) - 1u));
}

/// Which row of the pool holds a token of a key head, where the table says so.
fn poolRow(task: Task, page: i32, token: u32) -> u32 {
  return (u32(page) * u32(scalars.kvHeads) + task.kvHead) * PAGE_SIZE + token % PAGE_SIZE;
}

/// Where the table has a token's page.
fn tableAt(task: Task, token: u32) -> u32 {
  return task.sequence * u32(scalars.tableWidth) + token / PAGE_SIZE;
}

#if KEYS
/// Channels 8 · eighth … of a row of the pool of keys.
fn keyEight(row: u32, eighth: u32) -> Eight {
  let at = row * EIGHTS + eighth;
#if KV_DTYPE == 0
  return Eight(bitcast<vec4f>(keys[at * 2u]), bitcast<vec4f>(keys[at * 2u + 1u]));
#endif
#if KV_DTYPE == 1
  return widenF16(keys[at]);
#endif
#if KV_DTYPE == 2
  return widenBf16(keys[at]);
#endif
}

var<workgroup> query: array<vec4f, ROWS * WIDTH / 4u>;

/// Brings the task's queries to workgroup memory, scaled for scores in base 2. Rows past the last repeat it.
fn fetchQueries(task: Task, local: u32, workgroup: u32) {
  for (var i = local; i < ROWS * WIDTH / 4u; i += workgroup) {
    let row = placeOfRow(task, min(task.firstRow + i / (WIDTH / 4u), spanRows() - 1u));
    query[i] = q[row * (WIDTH / 4u) + i % (WIDTH / 4u)] * (scalars.softmaxScale * 1.4426950408889634);
  }
  workgroupBarrier();
}

/// Scores of the task's rows against one token's key.
fn scoresOf(row: u32) -> array<f32, ROWS> {
  var sums: array<f32, ROWS>;
  for (var r = 0u; r < ROWS; r++) { sums[r] = 0.0; }
  for (var eighth = 0u; eighth < EIGHTS; eighth++) {
    let key = keyEight(row, eighth);
    for (var r = 0u; r < ROWS; r++) {
      let at = r * (WIDTH / 4u) + eighth * 2u;
      sums[r] += dot(key.low, query[at]) + dot(key.high, query[at + 1u]);
    }
  }
  return sums;
}
#endif

#if VALUES
/// Channels 8 · eighth … of a row of the pool of values.
fn valueEight(row: u32, eighth: u32) -> Eight {
  let at = row * EIGHTS + eighth;
#if KV_DTYPE == 0
  return Eight(bitcast<vec4f>(values[at * 2u]), bitcast<vec4f>(values[at * 2u + 1u]));
#endif
#if KV_DTYPE == 1
  return widenF16(values[at]);
#endif
#if KV_DTYPE == 2
  return widenBf16(values[at]);
#endif
}
#endif
