//! Running sums along an axis of x (outer, n, inner): `y[i] = Σ x[j]` over j ≤ i, over j < i if `exclusive`, from the other end
//! if `reverse`. A thread for each line; sums of floats are held in f64, whole numbers wrap.
#include "cuda/dialect.cuh"

using namespace graft;

using Number = GRAFT_NUMBER;

template <class T> struct Running {
  using Sum = u64;
  static __device__ __forceinline__ Number end(u64 sum) { return static_cast<Number>(sum); }
};
template <> struct Running<float> {
  using Sum = double;
  static __device__ __forceinline__ float end(double sum) { return static_cast<float>(sum); }
};

extern "C" __global__ void __launch_bounds__(256)
running_sums(const Number* x, Number* y, i64 lines, i64 n, i64 inner, int exclusive, int reverse) {
  const i64 line = static_cast<i64>(blockIdx.x) * 256 + threadIdx.x;
  if (line >= lines) return;
  const i64 outer = divide(line, inner), first = outer * n * inner + (line - outer * inner);
  typename Running<Number>::Sum sum = 0;
  for (i64 step = 0; step < n; step++) {
    const i64 at = first + (reverse ? n - 1 - step : step) * inner;
    const auto with_own = sum + static_cast<typename Running<Number>::Sum>(x[at]);
    y[at] = Running<Number>::end(exclusive ? sum : with_own);
    sum = with_own;
  }
}
