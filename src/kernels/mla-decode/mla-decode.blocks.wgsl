// What the split stages of mla-decode share: their buffers, and which rows and tokens a workgroup has. Constants: ROWS, MODE (0 full,
// 1 causal, 2 indices), PAGE_SIZE.

@group(0) @binding(0) var<storage, read> q: array<vec4f>;
@group(0) @binding(1) var<storage, read> cache: array<LatentWords>;
@group(0) @binding(2) var<storage, read> table: array<i32>;
@group(0) @binding(3) var<storage, read> lengths: array<i32>;
@group(0) @binding(4) var<storage, read> batchCount: array<i32>;
@group(0) @binding(5) var<storage, read_write> partials: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> stats: array<vec2f>;

const NONE = 0xffffffffu;
const LOWEST = -1e30;

struct Block {
  sequence: u32,
  split: u32,
  /// First row among those of the sequence, and how many.
  first: u32,
  rows: u32,
  length: i32,
  tableRow: u32,
}

fn findBlock(item: u32) -> Block {
  let heads = u32(scalars.heads);
  let totalRows = u32(scalars.sQ) * heads;
  let splits = u32(scalars.splits);
  var block: Block;
#if MODE == 2
  let span = heads;
  let blocksOfSpan = (span + ROWS - 1u) / ROWS;
  let blocks = blocksOfSpan * u32(scalars.sQ);
#else
  let span = totalRows;
  let blocksOfSpan = (span + ROWS - 1u) / ROWS;
  let blocks = blocksOfSpan;
#endif
  let index = item % blocks;
  block.split = (item / blocks) % splits;
  block.sequence = item / (blocks * splits);
  let token = index / blocksOfSpan;
  let inSpan = (index % blocksOfSpan) * ROWS;
  block.first = token * heads + inSpan;
  block.rows = min(ROWS, span - inSpan);
#if MODE == 2
  block.length = scalars.tableWidth;
  block.tableRow = (block.sequence * u32(scalars.sQ) + token) * u32(scalars.tableWidth);
#else
  block.length = min(lengths[block.sequence], scalars.tableWidth * i32(PAGE_SIZE));
  block.tableRow = block.sequence * u32(scalars.tableWidth);
#endif
  return block;
}

/// Tokens that row `row` of a sequence of `length` sees.
fn visibleEnd(length: i32, row: u32) -> i32 {
#if MODE == 1
  return length - scalars.sQ + 1 + i32(row / u32(scalars.heads));
#else
  return length;
#endif
}

/// Slot of token `t`, or NONE.
fn slotOf(tableRow: u32, t: u32) -> u32 {
#if MODE == 2
  let slot = table[tableRow + t];
  if (slot < 0 || slot >= scalars.pages * i32(PAGE_SIZE)) { return NONE; }
  return u32(slot);
#else
  return u32(table[tableRow + t / PAGE_SIZE]) * PAGE_SIZE + t % PAGE_SIZE;
#endif
}
