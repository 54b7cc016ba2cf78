//! HydraLoRA: what one projection h = x·a and the probabilities p = softmax(x·router) of the heads make in rank space:
//! `z = p ⊗ h` (tokens, heads·rank), for which the heads, one below the other, are a LoRA up-projection. Nothing of the
//! size tokens × heads × out is made, and x and dy are each read once.
//!
//! a and router lie side by side in `joint` (in, width), with zeros up to the width; so do their gradients, and those of
//! h and of the logits in d = [dh | dl] (tokens, width). `GRAFT_WIDTH` is the width, rounded up to a power of two.
#include "cuda/instance.cuh"
#include "cuda/math.cuh"
#include "gemm/rank_grad.cuh"

using namespace graft;

namespace {

/// The tile of the joint projection: every block has whole rows, of each of the calls that read the same x.
using JointTile = NarrowTile<GRAFT_WIDTH>;

__device__ __forceinline__ void softmax(float* row, int n) {
  float largest = row[0], total = 0.f;
  for (int i = 1; i < n; i++) largest = row[i] > largest ? row[i] : largest;
  for (int i = 0; i < n; i++) total += row[i] = graft::exp(row[i] - largest);
  for (int i = 0; i < n; i++) row[i] /= total;
}

/// What becomes of the joint projection of a block's tokens.
struct Projected {
  int tokens, rank, heads;

  template <class Sums> __device__ __forceinline__ void store(Sums& sums, Element* h, float* p, Element* z) const {
    constexpr int STRIDE = GRAFT_WIDTH + 1;
    const int token = blockIdx.y * JointTile::M, rows = tokens - token < JointTile::M ? tokens - token : JointTile::M;
    float* const row = reinterpret_cast<float*>(shared_memory());
    sums.each([&](int i, int c, float& sum) {
      row[(JointTile::warp_row() + i) * STRIDE + c] = c < rank ? to_float(from_float<Element>(sum)) : sum;
    });
    sync_block();
    if (static_cast<int>(threadIdx.x) < rows) softmax(row + threadIdx.x * STRIDE + rank, heads);
    sync_block();
    for (int e = threadIdx.x; e < rows * rank; e += JointTile::THREADS) {
      h[static_cast<i64>(token) * rank + e] = from_float<Element>(row[e / rank * STRIDE + e % rank]);
    }
    for (int e = threadIdx.x; e < rows * heads; e += JointTile::THREADS) {
      p[static_cast<i64>(token) * heads + e] = row[e / heads * STRIDE + rank + e % heads];
    }
    const int cols = heads * rank;
    for (int e = threadIdx.x; e < rows * cols; e += JointTile::THREADS) {
      const float* const of = row + e / cols * STRIDE;
      const int c = e % cols;
      z[static_cast<i64>(token) * cols + e] = from_float<Element>(of[rank + c / rank] * of[c % rank]);
    }
  }
};

/// The pass over dy with z as the saved operand, made again of h and p, and the gradients in rank space.
struct HeadsGrad : RankGradOperands<Element, PADDED_RANK> {
  using G = RankGrad<Element, PADDED_RANK>;
  const float* p;
  int rank, heads;

  __device__ __forceinline__ float h_at(i64 token, int k) const { return to_float(saved.data[token * rank + k]); }

  __device__ __forceinline__ void load_saved(const typename G::Saved& panel, int token) const {
    panel.template fill<G::THREADS>([&](int c, int i) {
      const i64 row = token + i;
      return row < saved.rows && c < heads * rank ? p[row * heads + c / rank] * h_at(row, c % rank) : 0.f;
    });
  }

  /// dz goes to shared memory; of it dp, and of both d.
  __device__ __forceinline__ void finish(typename G::DqSums& sums, int token, bool) const {
    constexpr int STRIDE = PADDED_RANK + 1;
    static_assert(G::TOKENS * (STRIDE + PADDED_RANK) * sizeof(float) <= G::BYTES, "dz and dp lie where the panels were");
    float *const dz = reinterpret_cast<float*>(shared_memory()), *const dp = dz + G::TOKENS * STRIDE;
    const int rows = saved.rows - token < G::TOKENS ? saved.rows - token : G::TOKENS;
    sync_block();  // No thread reads the panels of dy any more.
    sums.each([&](int i, int c, float& sum) { dz[(G::warp_row() + i) * STRIDE + c] = sum * this->scale; });
    sync_block();
    for (int e = threadIdx.x; e < rows * heads; e += G::THREADS) {
      const int i = e / heads, first = e % heads * rank;
      dp[e] = 0.f;
      for (int k = 0; k < rank; k++) dp[e] += dz[i * STRIDE + first + k] * h_at(token + i, k);
    }
    sync_block();
    for (int e = threadIdx.x; e < rows * dq.cols; e += G::THREADS) {
      const int i = e / dq.cols, c = e % dq.cols;
      const float* const weights = p + static_cast<i64>(token + i) * heads;
      const float d = c < rank ? of_projection(weights, dz + i * STRIDE + c) : of_logit(weights, dp + i * heads, c - rank);
      dq.data[(token + i) * dq.stride + c] = from_float<Element>(d);
    }
  }

  /// dh = Σ p·dz over the heads.
  __device__ __forceinline__ float of_projection(const float* weights, const float* dz) const {
    float sum = 0.f;
    for (int head = 0; head < heads; head++) sum += weights[head] * dz[head * rank];
    return sum;
  }

  /// dl = p∘(dp − Σ p∘dp); 0 in the columns that fill up the width.
  __device__ __forceinline__ float of_logit(const float* weights, const float* dp, int head) const {
    if (head >= heads) return 0.f;
    float mean = 0.f;
    for (int other = 0; other < heads; other++) mean += weights[other] * dp[other];
    return weights[head] * (dp[head] - mean);
  }
};

}  // namespace

/// joint = [a | router | 0].
extern "C" __global__ void __launch_bounds__(256)
hydra_join(const Element* a, const Element* router, Element* joint, int n_in, int rank, int heads, int width) {
  const i64 i = static_cast<i64>(blockIdx.x) * 256 + threadIdx.x, row = i / width;
  const int col = static_cast<int>(i % width);
  if (row >= n_in) return;
  joint[i] = col < rank ? a[row * rank + col] : col < rank + heads ? router[row * heads + col - rank] : Element{};
}

/// h, p and z of each call, in one pass over x.
extern "C" __global__ void __launch_bounds__(JointTile::THREADS, JointTile::BLOCKS)
hydra_down(const Element* x, GRAFT_EACH(const Element*, joint), GRAFT_EACH(Element*, h), GRAFT_EACH(float*, p),
           GRAFT_EACH(Element*, z), int tokens, int n_in, int rank, int heads, int width) {
  using Right = Stack<const Element, GRAFT_WIDTH>;
  using Joint = Operation<Element, Element, 1, Major::K, Major::MN, Right>;
  const Right both = {GRAFT_OF_EACH(joint), n_in, width};
  const Each<Element*> all_h = GRAFT_OF_EACH(h), all_z = GRAFT_OF_EACH(z);
  const Each<float*> all_p = GRAFT_OF_EACH(p);
  typename JointTile::Sums sums;
  sum_tile<JointTile>(sums, Joint{{{x, tokens, n_in}}, {both}, {nullptr, tokens, rank}}, blockIdx.y * JointTile::M, 0);
#pragma unroll
  for (int call = 0; call < CALLS; call++) {
    auto own = sums.template columns<GRAFT_WIDTH>(call * GRAFT_WIDTH);
    sync_block();  // No thread reads the product's panels, or the rows of the call before, any more.
    Projected{tokens, rank, heads}.store(own, all_h[call], all_p[call], all_z[call]);
  }
}

/// d = [dh | dl], and a slab's part of zᵀ·dy, in one pass over dy.
extern "C" __global__ void __launch_bounds__(RankGrad<Element, PADDED_RANK>::THREADS, 2)
hydra_rank_grad(const Element* dy, const Element* b, const Element* h, const float* p, Element* d, float* db_parts, int tokens,
                int n_out, int rank, int heads, int width, const float* scale, int tiles_per_slab) {
  const int cols = heads * rank;
  const RankGradOperands<Element, PADDED_RANK> operands = {
      {dy, tokens, n_out}, {b, cols, n_out}, {h, tokens, rank}, {d, tokens, width}, slab_part(db_parts, cols, n_out), *scale};
  rank_grad(HeadsGrad{operands, p, rank, heads}, tiles_per_slab);
}
