//! Whole numbers in memory, of 4 or 8 bytes: positions along an axis, labels.
#pragma once
#include "cuda/dialect.cuh"

namespace graft {

struct Indices {
  const void* data;
  int is_wide;

  __device__ __forceinline__ i64 operator[](i64 i) const {
    return is_wide ? static_cast<const i64*>(data)[i] : static_cast<const int*>(data)[i];
  }
  /// Number `i` as a position along an axis of `size`; negative ones count from its end.
  __device__ __forceinline__ i64 position(i64 i, i64 size) const {
    const i64 given = (*this)[i], at = given < 0 ? given + size : given;
    if (at < 0 || at >= size) refuse("an index outside of its axis");
    return at;
  }
};

}  // namespace graft
