// Keys and values of a group of heads on subgroup matrices: scratch[head, token] = [W_UK c ; W_UV c] in f16, sums in float32. Workgroups
// are (128 weight rows, 128 tokens) and have four subgroups, each with 64 tokens by 64 rows in sixteen matrices; 32 channels at a time pass
// through workgroup memory, the next ones on their way meanwhile. Matrices are variables, laid out by `#for`; indices are
// expressions of the invocation's index whose range the compiler sees (mla-decode.subgroup-matrix.wgsl).
//
// Constants: LATENT (a multiple of 32), ROPE, LATENT_DTYPE, DTYPE of the weights (0 bf16, 1 f16), PAGE_SIZE.
#include "../common/grid.wgsl"
#include "../common/latent-octs.wgsl"

@group(0) @binding(0) var<storage, read> cache: array<LatentWords>;
@group(0) @binding(1) var<storage, read> blockTable: array<i32>;
@group(0) @binding(2) var<storage, read> cacheSeqlens: array<i32>;
@group(0) @binding(3) var<storage, read> kvB: array<vec4u>;
@group(0) @binding(SCRATCH) var<storage, read_write> scratch: array<vec4u>;

const EDGE = 128u;
const OCTS = LATENT / 8u;
const STRIDE = 40u;

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;

var<workgroup> tokens: array<f16, EDGE * STRIDE>;
var<workgroup> weights: array<f16, EDGE * STRIDE>;
/// A result of each subgroup on its way out. With it a workgroup takes 24 KiB, of which NVIDIA's driver runs two on a multiprocessor.
/// Matrices are stored at multiples of 16 bytes only: every variable has such a size.
var<workgroup> results: array<f32, 4u * 256u>;

/// Within f16's range.
fn clampFour(value: vec4f) -> vec4f { return clamp(value, vec4f(-65504.0), vec4f(65504.0)); }

/// Two neighbouring weights.
#if DTYPE == 0
fn weightPair(word: u32) -> vec2h { return vec2h(bitcast<vec2f>(vec2u(word << 16u, word & 0xffff0000u))); }
#else
fn weightPair(word: u32) -> vec2h { return bitcast<vec2h>(word); }
#endif

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let item = gridIndex(group);
  if (item >= scalars.grid) { return; }
  let rowBlocks = u32(scalars.rowBlocks);
  let firstRow = item % rowBlocks * EDGE;
  let firstToken = item / rowBlocks * EDGE;
  let length = min(u32(max(cacheSeqlens[0], 0)), u32(scalars.tokens));
  if (firstToken >= length) { return; }
  let rows = u32(scalars.groupRows);
  let subgroup = local / 32u;
  let ownToken = subgroup / 2u * 64u;
  let ownRow = subgroup % 2u * 64u;

  // All ones, which the compiler does not know: see packOct.
  let mask = select(0u, 0xffffffffu, length > 0u);
  // An invocation fetches oct `lane` of every 32 channels, of every 32nd token and row from `side` on.
  let side = local / 4u;
  let lane = local % 4u;
#for i 4
  let token$i = min(firstToken + side + 32u * $iu, length - 1u);
  let slot$i = u32(blockTable[token$i / PAGE_SIZE]) * PAGE_SIZE + token$i % PAGE_SIZE;
  let weight$i = (u32(scalars.firstRow) + min(firstRow + side + 32u * $iu, rows - 1u)) * OCTS;
  var nextToken$i = fetchOct(slot$i, lane);
  var nextWeight$i = kvB[weight$i + lane];
#for j 4
  var sum$i_$j: Sum;
#endfor
#endfor

  for (var start = 0u; start < OCTS; start += 4u) {
    workgroupBarrier();
#for i 4
    {
      let at = (side + 32u * $iu) * STRIDE + lane * 8u;
      let words = packOct(nextToken$i, start + lane) & vec4u(mask);
#for w 4
      let value$w = bitcast<vec2h>(words[$w]);
      tokens[at + 2u * $wu] = value$w.x;
      tokens[at + 2u * $wu + 1u] = value$w.y;
      let weight$w = weightPair(nextWeight$i[$w]);
      weights[at + 2u * $wu] = weight$w.x;
      weights[at + 2u * $wu + 1u] = weight$w.y;
#endfor
    }
#endfor
    workgroupBarrier();
    let next = min(start + 4u, OCTS - 4u) + lane;
#for i 4
    nextToken$i = fetchOct(slot$i, next);
    nextWeight$i = kvB[weight$i + next];
#endfor
#for k 2
#for j 4
    let right$k_$j = subgroupMatrixLoad<Right, col_major>(&weights, (ownRow + 16u * $ju) * STRIDE + 16u * $ku, STRIDE);
#endfor
#for i 4
    let left$k_$i = subgroupMatrixLoad<Left, row_major>(&tokens, (ownToken + 16u * $iu) * STRIDE + 16u * $ku, STRIDE);
#for j 4
    sum$i_$j = subgroupMatrixMultiplyAccumulate(left$k_$i, right$k_$j, sum$i_$j);
#endfor
#endfor
#endfor
  }

  // A lane has eight values of one token.
  let ownLane = local % 32u;
  let headRows = u32(scalars.headRows);
  let begin = subgroup * 256u + ownLane * 8u;
#for i 4
#for j 4
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&results, subgroup * 256u, sum$i_$j, 16u);
  workgroupBarrier();
  {
    let token = firstToken + ownToken + 16u * $iu + ownLane / 2u;
    let row = firstRow + ownRow + 16u * $ju + ownLane % 2u * 8u;
    if (token < length && row < rows) {
      let low = clampFour(vec4f(results[begin], results[begin + 1u], results[begin + 2u], results[begin + 3u]));
      let high = clampFour(vec4f(results[begin + 4u], results[begin + 5u], results[begin + 6u], results[begin + 7u]));
      let at = ((row / headRows * u32(scalars.tokens) + token) * headRows + row % headRows) / 8u;
      scratch[at] = vec4u(packFour(low), packFour(high));
    }
  }
#endfor
#endfor
}
