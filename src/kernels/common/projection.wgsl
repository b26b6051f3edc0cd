// What both projections share: buffers, rows, and what becomes of a sum. GATED: silu(x·first)·(x·second), else x·first. EXPERTS: rows are
// the (token, choice) pairs of one expert, as `expert-mlp` sorts them. BIASED, ACCUMULATE: of linear alone.
// SECOND: there is a second matrix. Buffers: x, first, second (or the bias), out, and rowCount or the plan of the experts. Scalars: inputs, outputs (floats from one row
// of out to the next), begin (the first output of this launch), count (its outputs), xStride, scale; with EXPERTS also experts (of this
// launch), firstExpert, allExperts, share (pairs that read the same row of x),
// expertRows (weight rows from one expert to the next) and secondRow (the second matrix's first row in its buffer).

@group(0) @binding(0) var<storage, read> x: array<XWords>;
@group(0) @binding(1) var<storage, read> first: array<vec4u>;
#if SECOND
@group(0) @binding(2) var<storage, read> second: array<vec4u>;
#endif
#if BIASED
@group(0) @binding(2) var<storage, read> bias: array<f32>;
#endif
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read> rows: array<i32>;

#if X_VECTORS
alias XWords = vec4f;
/// Inputs 4 · index … of row `row` of x.
fn fourInputs(row: u32, index: u32) -> vec4f { return x[row * (u32(scalars.xStride) / 4u) + index]; }
#else
alias XWords = f32;
fn fourInputs(row: u32, index: u32) -> vec4f {
  let at = row * u32(scalars.xStride) + index * 4u;
  return vec4f(x[at], x[at + 1u], x[at + 2u], x[at + 3u]);
}
#endif

struct Span { begin: u32, end: u32 }
var<workgroup> sharedSpan: Span;

/// The rows that this workgroup has to do with: all, or one expert's pairs. The same for every invocation.
fn liveRows(expert: u32, local: u32) -> Span {
  if (local == 0u) {
#if EXPERTS
    let at = u32(scalars.firstExpert) + expert;
    sharedSpan = Span(u32(rows[at]), u32(rows[at + 1u]));
#else
    sharedSpan = Span(0u, u32(max(rows[0], 0)));
#endif
  }
  return workgroupUniformLoad(&sharedSpan);
}

/// The row of `out` that live row `index` stands for.
fn outRow(index: u32) -> u32 {
#if EXPERTS
  return u32(rows[u32(scalars.allExperts) + 1u + index]);
#else
  return index;
#endif
}

/// The row of x that live row `index` reads.
fn inRow(index: u32) -> u32 {
#if EXPERTS
  return outRow(index) / u32(scalars.share);
#else
  return index;
#endif
}

fn silu(value: f32) -> f32 {
  return value / (1.0 + exp(-clamp(value, -80.0, 80.0)));
}

/// `before` is what `out` held there, where it was read ahead.
fn store(row: u32, output: u32, sum: f32, gated: f32, before: f32) {
  let at = row * u32(scalars.outputs) + u32(scalars.begin) + output;
#if GATED
  out[at] = silu(sum) * gated;
#else
  var value = sum;
#if BIASED
  value += bias[u32(scalars.begin) + output];
#endif
  value *= scalars.scale;
#if ACCUMULATE_EARLY
  value += before;
#else
#if ACCUMULATE
  value += out[at];
#endif
#endif
  out[at] = value;
#endif
}
