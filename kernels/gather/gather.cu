//! y[o, j, i] = x[o, index[j], i]: elements moved whole, whatever they mean.
#include "cuda/index.cuh"

using namespace graft;

using Unit = GRAFT_UNIT;

/// x (outer, size, inner), y (outer, n, inner), whose elements are `total`.
extern "C" __global__ void __launch_bounds__(256)
gather(const Unit* x, const void* index, int is_wide, Unit* y, i64 total, i64 size, i64 n, i64 inner) {
  const Indices indices = {index, is_wide};
  for (i64 e = static_cast<i64>(blockIdx.x) * 1024 + threadIdx.x, last = e + 768; e <= last && e < total; e += 256) {
    const i64 slice = divide(e, inner), outer = divide(slice, n);
    y[e] = x[(outer * size + indices.position(slice - outer * n, size)) * inner + (e - slice * inner)];
  }
}
