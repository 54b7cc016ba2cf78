//! The random generator of graft: squares (Widynski 2020, arXiv 2004.06278), counted by step, tensor and element. The
//! same bits as `graft_ir::random` draws.
#pragma once
#include "cuda/dialect.cuh"

namespace graft {

/// The random numbers of one tensor at one step.
struct Stream {
  u64 key, start;

  __device__ __forceinline__ Stream(u64 seed, u64 step, u64 tensor)
      : key((2 * seed + 1) * 0x9E3779B97F4A7C15ull), start((step << 44) + (tensor << 32)) {}

  /// The 32 random bits of element `index`.
  __device__ __forceinline__ u32 bits(u64 index) const {
    const u64 y = (start + index) * key, z = y + key;
    const u64 x = round(round(round(y, y), z), y);
    return static_cast<u32>((x * x + z) >> 32);
  }

  /// A uniform draw strictly inside (0, 1), exact in f32.
  __device__ __forceinline__ float uniform(u64 index) const {
    return (static_cast<float>(bits(index) >> 9) + 0.5f) * 1.1920928955078125e-07f;
  }

 private:
  static __device__ __forceinline__ u64 round(u64 x, u64 add) {
    const u64 y = x * x + add;
    return y >> 32 | y << 32;
  }
};

/// Inverted dropout of a matrix with `width` columns: what is kept counts 1/(1−p) times. With a threshold of 0 nothing
/// is dropped. `counters` holds seed and step, in device memory so that a captured graph can be replayed with others.
struct Dropout {
  Stream stream;
  i64 width;
  u32 threshold;
  float scale;

  __device__ __forceinline__ Dropout(const i64* counters, u32 tensor, i64 width, u32 threshold, float scale)
      : stream(counters ? counters[0] : 0, counters ? counters[1] : 0, tensor),
        width(width), threshold(threshold), scale(scale) {}

  __device__ __forceinline__ bool keeps(i64 row, i64 col) const {
    return threshold == 0 || stream.bits(row * width + col) >= threshold;
  }
};

}  // namespace graft
