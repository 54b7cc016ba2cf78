//! Draws of the counter-based generator: uniform numbers, and dropout. Seed, step and tensor lie in device memory.
#include "cuda/random.cuh"

using namespace graft;

using Element = GRAFT_ELEMENT;

/// u[i] strictly inside (0, 1).
extern "C" __global__ void __launch_bounds__(256)
uniform(const i64* seed, const i64* step, const i64* tensor, Element* u, i64 n) {
  const i64 i = static_cast<i64>(blockIdx.x) * 256 + threadIdx.x;
  if (i < n) u[i] = from_float<Element>(Stream(*seed, *step, *tensor).uniform(i));
}

/// y = x·scale where the bits are at least `threshold`, else x·0, which keeps NaN and infinities from going unseen.
extern "C" __global__ void __launch_bounds__(256)
dropout(const Element* x, const i64* seed, const i64* step, const i64* tensor, Element* y, i64 n, i64 threshold, float scale) {
  const i64 i = static_cast<i64>(blockIdx.x) * 256 + threadIdx.x;
  if (i >= n) return;
  const bool is_dropped = static_cast<i64>(Stream(*seed, *step, *tensor).bits(i)) < threshold;
  y[i] = from_float<Element>(to_float(x[i]) * (is_dropped ? 0.f : scale));
}
