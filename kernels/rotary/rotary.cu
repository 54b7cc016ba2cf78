//! The rotation of positions, in halves: of each row `[a | b]` the row `[a·cos − b·sin | b·cos + a·sin]`, each half with its own
//! angles; `direction` is −1 for the gradient, which turns back. In f64, since the terms may cancel.
#include "cuda/walk.cuh"

using namespace graft;

using Element = GRAFT_ELEMENT;

/// The walk goes over the rows of x, whose elements are `step` apart, and over those of the angles.
extern "C" __global__ void __launch_bounds__(256)
rotary(const Element* x, i64 step, const Element* cosines, const Element* sines, Element* y, i64 rows, i64 half,
       float direction, GRAFT_SIZES(w), GRAFT_STRIDES(of_x), GRAFT_STRIDES(of_angles)) {
  const i64 pair = static_cast<i64>(blockIdx.x) * 256 + threadIdx.x;
  if (pair >= rows * half) return;
  const i64 row = divide(pair, half), j = pair - row * half;
  i64 offsets[2];
  GRAFT_WALK_OF_TWO(w, of_x, of_angles).at(row, offsets);
  const auto wide = [](Element e) { return static_cast<double>(to_float(e)); };
  const double a = wide(x[offsets[0] + j * step]), b = wide(x[offsets[0] + (half + j) * step]);
  const Element *const cos = cosines + offsets[1] + j, *const sin = sines + offsets[1] + j;
  // Turning back, each sine is that which the element met.
  const double first = direction > 0 ? a * wide(cos[0]) - b * wide(sin[0]) : a * wide(cos[0]) + b * wide(sin[half]);
  const double second = direction > 0 ? b * wide(cos[half]) + a * wide(sin[half]) : b * wide(cos[half]) - a * wide(sin[0]);
  y[row * 2 * half + j] = from_float<Element>(static_cast<float>(first));
  y[row * 2 * half + half + j] = from_float<Element>(static_cast<float>(second));
}
