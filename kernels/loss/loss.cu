//! Cross-entropy of logits (samples, classes, positions): each label's loss is `log Σ e^x − x[label]`, held in f64, and its
//! gradient `share · (softmax(x) − one_hot(label))`. Labels that do not count give 0.
#include "cuda/index.cuh"
#include "cuda/math.cuh"
#include "cuda/team.cuh"

using namespace graft;

namespace {

using Element = GRAFT_ELEMENT;

/// The logits of a label.
struct Logits {
  const Element* data;
  i64 classes, positions;

  __device__ __forceinline__ i64 place(i64 row, i64 c) const {
    const i64 sample = divide(row, positions);
    return (sample * classes + c) * positions + (row - sample * positions);
  }
  __device__ __forceinline__ float at(i64 row, i64 c) const { return to_float(data[place(row, c)]); }

  /// log Σ e^x.
  template <class Team> __device__ __forceinline__ double log_sum_exp(Team team, i64 row) const {
    const double largest = team.max(classes, -as_float(INFINITE), [&](i64 c) { return at(row, c); });
    const double total = team.sum(classes, [&](i64 c) {
      return static_cast<double>(graft::exp(static_cast<float>(at(row, c) - largest)));
    });
    // What is no number stays so.
    return largest + (total < 1e300 ? log64(total) : total);
  }
};

/// Labels, and which of them do not count.
struct Labels {
  Indices indices;
  i64 ignored;
  int has_ignored;

  __device__ __forceinline__ bool counts(i64 row) const { return !has_ignored || indices[row] != ignored; }
};

__device__ __forceinline__ i64 class_of(i64 label, i64 classes) {
  if (label < 0 || label >= classes) refuse("a label that is no class");
  return label;
}

}  // namespace

/// Each label's loss, and the logarithms of the probabilities where they are wanted.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
cross_entropy(const Element* x, const void* labels, int is_wide, double* losses, Element* log_prob, i64 rows, i64 classes,
              i64 positions, i64 ignored, int has_ignored) {
  const Logits logits = {x, classes, positions};
  const Labels all = {{labels, is_wide}, ignored, has_ignored};
  each_row(classes, [&](auto team, i64 given) {
    const i64 row = given < rows ? given : 0;
    const double shift = logits.log_sum_exp(team, row);
    if (given >= rows) return;
    if (team.lane() == 0) {
      losses[row] = all.counts(row) ? shift - logits.at(row, class_of(all.indices[row], classes)) : 0.0;
    }
    for (i64 c = team.lane(); log_prob && c < classes; c += ROW_THREADS / team.ROWS) {
      log_prob[logits.place(row, c)] = from_float<Element>(static_cast<float>(logits.at(row, c) - shift));
    }
  });
}

/// The sum of the losses, or their mean over the labels that count; one block.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
cross_entropy_sum(const double* losses, const void* labels, int is_wide, float* loss, i64 rows, i64 ignored, int has_ignored,
                  int is_mean) {
  const Labels all = {{labels, is_wide}, ignored, has_ignored};
  const Team<ROW_THREADS> team;
  const double sum = team.sum(rows, [&](i64 row) { return losses[row]; });
  const double n = team.sum(rows, [&](i64 row) { return all.counts(row) ? 1.0 : 0.0; });
  if (threadIdx.x == 0) *loss = static_cast<float>(is_mean ? sum / n : sum);
}

/// What a label that counts has of the gradient of the mean; one block.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
cross_entropy_share(const float* dloss, const void* labels, int is_wide, double* share, i64 rows, i64 ignored,
                    int has_ignored) {
  const Labels all = {{labels, is_wide}, ignored, has_ignored};
  const double n = Team<ROW_THREADS>::sum(rows, [&](i64 row) { return all.counts(row) ? 1.0 : 0.0; });
  if (threadIdx.x == 0) *share = static_cast<double>(*dloss) / (n > 1.0 ? n : 1.0);
}

/// The gradient; either all labels that count have the same share, or each has its own, and counts unless that is 0.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
cross_entropy_grad(const double* share, const float* shares, const Element* x, const void* labels, int is_wide, Element* dx,
                   i64 rows, i64 classes, i64 positions, i64 ignored, int has_ignored) {
  const Logits logits = {x, classes, positions};
  const Labels all = {{labels, is_wide}, ignored, has_ignored};
  each_row(classes, [&](auto team, i64 given) {
    const i64 row = given < rows ? given : 0;
    const double shift = logits.log_sum_exp(team, row);
    if (given >= rows) return;
    const double scale = shares ? static_cast<double>(shares[row]) : *share;
    const bool is_counted = shares ? scale != 0.0 : all.counts(row);
    const i64 own = is_counted ? class_of(all.indices[row], classes) : -1;
    for (i64 c = team.lane(); c < classes; c += ROW_THREADS / team.ROWS) {
      const double log_p = logits.at(row, c) - shift;
      // The label's own entry as 1 − p would cancel in f32.
      const double excess = c == own ? exp64(clamp(log_p, -700.0, 700.0)) - 1.0 : static_cast<double>(graft::exp(static_cast<float>(log_p)));
      dx[logits.place(row, c)] = from_float<Element>(is_counted ? static_cast<float>(scale * excess) : 0.f);
    }
  });
}
