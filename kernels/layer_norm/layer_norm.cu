//! Normalisation over rows, moments held in f64: `y = u · scale + bias` with `u = (x − mean) · s`, `s = 1/√(variance + ε)`, and
//! its gradient: with `g = dy · scale`, `dx = s · (g − mean(g) − u · mean(g · u))`, `dscale = Σ dy · u`, `dbias = Σ dy`.
//! That by the root of the mean square has no mean: `GRAFT_CENTRED` is 0 then, else 1.
//!
//! x (rows, n), scale and bias (n), mean and s (rows). What is a sum over rows, and mean and s, are f32 whatever x is.
#include "cuda/team.cuh"

using namespace graft;

namespace {

using Element = GRAFT_ELEMENT;
constexpr bool IS_CENTRED = GRAFT_CENTRED;

/// A row's moments as they were saved, and what its elements become.
struct Moments {
  double mean, inverse;

  __device__ __forceinline__ Moments(const float* means, const float* inverses, i64 row)
      : mean(IS_CENTRED ? static_cast<double>(means[row]) : 0.0), inverse(inverses[row]) {}
  __device__ __forceinline__ double unit(Element x) const { return (static_cast<double>(to_float(x)) - mean) * inverse; }
};

__device__ __forceinline__ double wide(Element x) { return to_float(x); }

}  // namespace

/// `bias`, `mean` and `inverse` may be null.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
normalise(const Element* x, const Element* scale, const Element* bias, Element* y, float* means, float* inverses, i64 rows,
          i64 n, float epsilon) {
  each_row(n, [&](auto team, i64 row) {
    const bool is_row = row < rows;
    // What is no row is empty: another team may be overwriting whatever it read.
    const i64 length = is_row ? n : 0;
    const Element* const from = x + row * n;
    const double mean = IS_CENTRED ? team.sum(length, [&](i64 i) { return wide(from[i]); }) / static_cast<double>(n) : 0.0;
    const double squares = team.sum(length, [&](i64 i) {
      const double centred = wide(from[i]) - mean;
      return centred * centred;
    });
    const double inverse = 1.0 / graft::sqrt(squares / static_cast<double>(n) + static_cast<double>(epsilon));
    if (!is_row) return;
    // Each thread reads what it overwrites: the result may lie where the operand does.
    for (i64 i = team.lane(); i < n; i += ROW_THREADS / team.ROWS) {
      const double scaled = (wide(from[i]) - mean) * inverse * wide(scale[i]);
      y[row * n + i] = from_float<Element>(static_cast<float>(bias ? scaled + wide(bias[i]) : scaled));
    }
    if (team.lane() != 0) return;
    if (means) means[row] = static_cast<float>(mean);
    if (inverses) inverses[row] = static_cast<float>(inverse);
  });
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
normalise_grad(const Element* dy, const Element* x, const Element* scale, const float* means, const float* inverses,
               Element* dx, i64 rows, i64 n) {
  each_row(n, [&](auto team, i64 row) {
    const bool is_row = row < rows;
    const i64 length = is_row ? n : 0;
    const Element *const d = dy + row * n, *const from = x + row * n;
    const Moments moments(means, inverses, is_row ? row : 0);
    const auto g = [&](i64 i) { return wide(d[i]) * wide(scale[i]); };
    const double mean = IS_CENTRED ? team.sum(length, g) / static_cast<double>(n) : 0.0;
    const double along = team.sum(length, [&](i64 i) { return g(i) * moments.unit(from[i]); }) / static_cast<double>(n);
    if (!is_row) return;
    for (i64 i = team.lane(); i < n; i += ROW_THREADS / team.ROWS) {
      const double rest = g(i) - mean - moments.unit(from[i]) * along;
      dx[row * n + i] = from_float<Element>(static_cast<float>(moments.inverse * rest));
    }
  });
}

/// A slab's parts of dscale and dbias, a thread for each column; either may be null.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
normalise_columns(const Element* dy, const Element* x, const float* means, const float* inverses, double* dscale,
                  double* dbias, i64 rows, i64 n, i64 per_slab) {
  const i64 column = static_cast<i64>(blockIdx.x) * ROW_THREADS + threadIdx.x, begin = blockIdx.y * per_slab;
  if (column >= n) return;
  double along_unit = 0, alone = 0;
  for (i64 row = begin; row < rows && row < begin + per_slab; row++) {
    const double d = wide(dy[row * n + column]);
    along_unit += d * Moments(means, inverses, row).unit(x[row * n + column]);
    alone += d;
  }
  if (dscale) dscale[blockIdx.y * n + column] = along_unit;
  if (dbias) dbias[blockIdx.y * n + column] = alone;
}

/// Joins the slabs' parts, in order.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
normalise_columns_sum(const double* parts, float* out, i64 n, int slabs) {
  const i64 i = static_cast<i64>(blockIdx.x) * ROW_THREADS + threadIdx.x;
  if (i >= n) return;
  double sum = 0;
  for (int slab = 0; slab < slabs; slab++) sum += parts[slab * n + i];
  out[i] = static_cast<float>(sum);
}
