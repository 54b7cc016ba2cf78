//! Sums over slabs, in a fixed order: the second half of every sum over the tokens that is split among blocks, so that no
//! atomics are needed and the result has the same bits each time.
#include "cuda/dialect.cuh"

using namespace graft;

/// out[i, j] = scale · Σ over slabs of parts[slab][i, first + j], where out has `cols` columns and a slab's part `width`;
/// `scale` may be null.
extern "C" __global__ void __launch_bounds__(256)
sum_slabs(const float* parts, float* out, i64 rows, int cols, int width, int first, int slabs, const float* scale) {
  const i64 i = static_cast<i64>(blockIdx.x) * 256 + threadIdx.x;
  if (i >= rows * cols) return;
  const float* const part = parts + i / cols * width + first + i % cols;
  float sum = 0.f;
  for (int slab = 0; slab < slabs; slab++) sum += part[slab * rows * width];
  out[i] = scale ? sum * *scale : sum;
}
