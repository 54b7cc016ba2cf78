//! What Bone makes of x: `s = fold(x)` sums its columns that agree modulo the rank. Adapters of several layers that read the
//! same x, with the same rank, all get the s that is computed once.
#include "cuda/stack.cuh"

using namespace graft;

using Element = GRAFT_ELEMENT;

/// s = fold(x), one element for each thread; a warp reads neighbouring columns.
extern "C" __global__ void __launch_bounds__(256)
bone_fold(const Element* x, GRAFT_EACH(Element*, s), int tokens, int n_in, int rank) {
  const i64 i = static_cast<i64>(blockIdx.x) * 256 + threadIdx.x;
  if (i >= static_cast<i64>(tokens) * rank) return;
  const Element* row = x + i / rank * n_in;
  float sum = 0.f;
  for (int col = static_cast<int>(i % rank); col < n_in; col += rank) sum += to_float(row[col]);
  const Each<Element*> all = GRAFT_OF_EACH(s);
#pragma unroll
  for (int call = 0; call < CALLS; call++) all[call][i] = from_float<Element>(sum);
}
