//! Softmax along an axis of x (outer, n, inner), sums held in f64: `y = e^(x − max) / Σ e^(x − max)`, or its logarithm, and its
//! gradient `dx = y · (dy − Σ dy·y)`. Each thread reads what it overwrites, so results may lie where operands do.
#include "cuda/math.cuh"
#include "cuda/team.cuh"

using namespace graft;

namespace {

using Element = GRAFT_ELEMENT;

/// A row of elements `inner` apart.
struct Row {
  i64 first, step;

  __device__ __forceinline__ Row(i64 row, i64 n, i64 inner) : step(inner) {
    const i64 outer = divide(row, inner);
    first = outer * n * inner + (row - outer * inner);
  }
  __device__ __forceinline__ i64 at(i64 i) const { return first + i * step; }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
softmax(const Element* x, Element* y, i64 rows, i64 n, i64 inner, int is_log) {
  each_row(n, [&](auto team, i64 given) {
    // What is no row is empty: another team may be overwriting whatever it read.
    const i64 length = given < rows ? n : 0;
    const Row row(given, n, inner);
    const float largest = team.max(length, -as_float(INFINITE), [&](i64 i) { return to_float(x[row.at(i)]); });
    const auto share = [&](i64 i) { return static_cast<double>(graft::exp(to_float(x[row.at(i)]) - largest)); };
    const double total = team.sum(length, share);
    if (given >= rows) return;
    double end;
    if (is_log) {
      // What is no number stays so.
      end = largest + (total < 1e300 ? log64(total) : total);
    } else {
      end = 1.0 / total;
    }
    for (i64 i = team.lane(); i < n; i += ROW_THREADS / team.ROWS) {
      const double value = is_log ? static_cast<double>(to_float(x[row.at(i)])) - end : share(i) * end;
      y[row.at(i)] = from_float<Element>(static_cast<float>(value));
    }
  });
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
softmax_grad(const Element* dy, const Element* y, Element* dx, i64 rows, i64 n, i64 inner) {
  each_row(n, [&](auto team, i64 given) {
    const i64 length = given < rows ? n : 0;
    const Row row(given, n, inner);
    const auto wide = [&](const Element* from, i64 i) { return static_cast<double>(to_float(from[row.at(i)])); };
    const double along = team.sum(length, [&](i64 i) { return wide(dy, i) * wide(y, i); });
    if (given >= rows) return;
    for (i64 i = team.lane(); i < n; i += ROW_THREADS / team.ROWS) {
      dx[row.at(i)] = from_float<Element>(static_cast<float>(wide(y, i) * (wide(dy, i) - along)));
    }
  });
}
