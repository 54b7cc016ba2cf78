//! Bat by rows of blocks, which acts on what goes into a linear, and from the left, which acts on what comes out: products
//! of activations (tokens, blocks·rank) with the block-diagonal matrix of d (blocks, rank, rank), one token and one column
//! for each thread.
#include "cuda/dialect.cuh"

using namespace graft;

using Element = GRAFT_ELEMENT;

/// moved = v + u and total = Σ_b u_b with u_b = v_b·d_bᵀ.
extern "C" __global__ void __launch_bounds__(256)
bat_turn(const Element* v, const Element* d, Element* moved, Element* total, int tokens, int width, int rank) {
  const i64 i = static_cast<i64>(blockIdx.x) * 256 + threadIdx.x, token = i / rank;
  const int p = static_cast<int>(i % rank);
  if (token >= tokens) return;
  float sum = 0.f;
  for (int first = 0; first < width; first += rank) {
    const Element *const block = v + token * width + first, *const row = d + static_cast<i64>(first + p) * rank;
    float u = 0.f;
    for (int k = 0; k < rank; k++) u = graft::fma(to_float(block[k]), to_float(row[k]), u);
    moved[token * width + first + p] = from_float<Element>(to_float(block[p]) + u);
    sum += u;
  }
  total[i] = from_float<Element>(sum);
}

/// With u_b = base_b + q: out_b = base_b + u_b·d_b, and u block after block; a null out or u is not wanted.
extern "C" __global__ void __launch_bounds__(256)
bat_add(const Element* base, const Element* q, const Element* d, Element* out, Element* u, int tokens, int width, int rank) {
  const i64 i = static_cast<i64>(blockIdx.x) * 256 + threadIdx.x, token = i / width;
  const int col = static_cast<int>(i % width), p = col % rank, first = col - p;
  if (token >= tokens) return;
  const Element *const block = base + token * width + first, *const added = q + token * rank;
  const Element* const column = d + static_cast<i64>(first) * rank + p;
  float sum = to_float(block[p]);
  if (u) u[(static_cast<i64>(first / rank) * tokens + token) * rank + p] = from_float<Element>(sum + to_float(added[p]));
  for (int k = 0; k < rank; k++) sum = graft::fma(to_float(block[k]) + to_float(added[k]), to_float(column[k * rank]), sum);
  if (out) out[i] = from_float<Element>(sum);
}

/// A slab's part of dd_b = (u_b + q)ᵀ·v_b, the sum over its tokens. `u_block` and `u_row` are how far apart blocks and rows
/// of u begin; a null q is nothing. grid = (blocks, slabs).
extern "C" __global__ void __launch_bounds__(256)
bat_gram(const Element* u, const Element* q, const Element* v, float* parts, int tokens, int width, int rank, i64 u_block,
         i64 u_row, int tokens_per_slab) {
  const int begin = blockIdx.y * tokens_per_slab, end = tokens - begin < tokens_per_slab ? tokens : begin + tokens_per_slab;
  const Element *const left = u + blockIdx.x * u_block, *const right = v + static_cast<i64>(blockIdx.x) * rank;
  float* const part = parts + (static_cast<i64>(blockIdx.y) * width + static_cast<i64>(blockIdx.x) * rank) * rank;
  for (int e = threadIdx.x; e < rank * rank; e += 256) {
    const int i = e / rank, j = e % rank;
    float sum = 0.f;
    for (i64 token = begin; token < end; token++) {
      const float l = to_float(left[token * u_row + i]) + (q ? to_float(q[token * rank + i]) : 0.f);
      sum = graft::fma(l, to_float(right[token * width + j]), sum);
    }
    part[e] = sum;
  }
}
