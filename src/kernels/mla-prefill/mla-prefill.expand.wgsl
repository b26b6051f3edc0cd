// Keys and values of a group of heads, once for each cached token: scratch[head, token] = [W_UK c ; W_UV c], float32. Workgroups are
// (64 weight rows, 64 tokens); an invocation sums 4 × 4. Constants: LATENT, ROPE, LATENT_DTYPE, DTYPE of the weights, PAGE_SIZE.
#include "../common/grid.wgsl"
#include "../common/latent.wgsl"
#include "../common/weights.wgsl"

@group(0) @binding(0) var<storage, read> cache: array<LatentWords>;
@group(0) @binding(1) var<storage, read> blockTable: array<i32>;
@group(0) @binding(2) var<storage, read> cacheSeqlens: array<i32>;
@group(0) @binding(3) var<storage, read> kvB: array<WeightWords>;
@group(0) @binding(SCRATCH) var<storage, read_write> scratch: array<f32>;

const EDGE = 64u;
const QUADS = LATENT / 4u;
/// Vectors of four channels that pass through workgroup memory at a time.
const CHUNK = 4u;
const STRIDE = EDGE + 1u;

var<workgroup> tokens: array<vec4f, CHUNK * STRIDE>;
var<workgroup> weights: array<vec4f, CHUNK * STRIDE>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let item = gridIndex(group);
  if (item >= scalars.grid) { return; }
  let rowBlocks = u32(scalars.rowBlocks);
  let firstRow = item % rowBlocks * EDGE;
  let firstToken = item / rowBlocks * EDGE;
  let length = min(u32(max(cacheSeqlens[0], 0)), u32(scalars.tokens));
  if (firstToken >= length) { return; }
  let rows = u32(scalars.groupRows);
  let side = local / CHUNK;
  let loadQuad = local % CHUNK;
  let token = firstToken + side;
  var slot = 0u;
  if (token < length) { slot = u32(blockTable[token / PAGE_SIZE]) * PAGE_SIZE + token % PAGE_SIZE; }
  let weightRow = firstRow + side;
  let mine = local % 16u;
  let other = local / 16u;
  // [token][row]: tokens mine + 16 i, rows other + 16 j.
  var sums: array<vec4f, 4>;
  for (var i = 0u; i < 4u; i++) { sums[i] = vec4f(0); }
  for (var start = 0u; start < QUADS; start += CHUNK) {
    let quad = start + loadQuad;
    var tokenValue = vec4f(0);
    var weightValue = vec4f(0);
    if (token < length && quad < QUADS) { tokenValue = latentFour(slot, quad); }
    if (weightRow < rows && quad < QUADS) {
      weightValue = widenWeights(kvB[(u32(scalars.firstRow) + weightRow) * QUADS + quad]);
    }
    tokens[loadQuad * STRIDE + side] = tokenValue;
    weights[loadQuad * STRIDE + side] = weightValue;
    workgroupBarrier();
    for (var c = 0u; c < CHUNK; c++) {
      let at = c * STRIDE;
      let w0 = weights[at + other];
      let w1 = weights[at + other + 16u];
      let w2 = weights[at + other + 32u];
      let w3 = weights[at + other + 48u];
      for (var i = 0u; i < 4u; i++) {
        let t = tokens[at + mine + 16u * i];
        sums[i] += vec4f(dot(w0, t), dot(w1, t), dot(w2, t), dot(w3, t));
      }
    }
    workgroupBarrier();
  }
  let headRows = u32(scalars.headRows);
  for (var i = 0u; i < 4u; i++) {
    let t = firstToken + mine + 16u * i;
    for (var j = 0u; j < 4u; j++) {
      let row = firstRow + other + 16u * j;
      if (t < length && row < rows) {
        scratch[(row / headRows * u32(scalars.tokens) + t) * headRows + row % headRows] = sums[i][j];
      }
    }
  }
}
