//! Sums over slabs, in a fixed order: the second half of every sum over the tokens that is split among blocks, so that no
//! atomics are needed and the result has the same bits each time.
#include "cuda/dialect.cuh"

using namespace graft;

/// out[i] = scale · Σ over slabs of parts[slab][i]; `scale` may be null.
extern "C" __global__ void __launch_bounds__(256)
sum_slabs(const float* parts, GRAFT_ELEMENT* out, i64 n, int slabs, const float* scale) {
  const i64 i = static_cast<i64>(blockIdx.x) * 256 + threadIdx.x;
  if (i >= n) return;
  float sum = 0.f;
  for (int slab = 0; slab < slabs; slab++) sum += parts[slab * n + i];
  out[i] = from_float<GRAFT_ELEMENT>(scale ? sum * *scale : sum);
}
