//! What several calls that read the same operand have of their own, where one launch serves them all: `GRAFT_CALLS` of them,
//! or one. `stack.rs` makes such a launch of theirs.
#pragma once
#include "cuda/panel.cuh"

#ifndef GRAFT_CALLS
#define GRAFT_CALLS 1
#endif

namespace graft {

/// How many calls a launch serves.
inline constexpr int CALLS = GRAFT_CALLS;

/// Something of each call. As many as there may be are parameters of the kernel; those after the last call are none.
template <class T> struct Each {
  T of_0, of_1, of_2, of_3;

  /// That of a call. An array, whose index is known at run time only, would lie in local memory.
  __device__ __forceinline__ T operator[](int call) const {
    T found = of_0;
    if (CALLS > 1 && call == 1) found = of_1;
    if (CALLS > 2 && call == 2) found = of_2;
    if (CALLS > 3 && call == 3) found = of_3;
    return found;
  }
};

/// A matrix of each call, all of the same sizes, side by side: each has `WIDTH` columns, the last of which may be none.
template <class T, int WIDTH> struct Stack {
  using Element = T;

  Each<T*> data;
  int rows, cols;

  __device__ __forceinline__ Matrix<T> operator[](int call) const { return {data[call], rows, cols}; }

  /// The matrix that has column `col`, which becomes the number of the column in it.
  __device__ __forceinline__ Matrix<T> of_column(int& col) const {
    const int call = CALLS > 1 ? col / WIDTH : 0;
    col -= call * WIDTH;
    return (*this)[call];
  }
  /// The ones that lie, each, behind so many of these sizes.
  __device__ __forceinline__ Stack after(int n) const {
    const i64 apart = static_cast<i64>(rows) * cols * n;
    return {{data.of_0 + apart, data.of_1 + apart, data.of_2 + apart, data.of_3 + apart}, rows, cols};
  }
};

/// A panel of each of them in shared memory, one behind the other.
template <class T, int WIDTH, int DEPTH> struct StackPanel {
  using Element = T;
  using One = Panel<T, WIDTH, DEPTH, Major::MN>;
  static constexpr Major ALONG = Major::MN;
  static constexpr int K = DEPTH, ELEMENTS = CALLS * One::ELEMENTS;

  T* data;

  __device__ __forceinline__ One operator[](int call) const { return {data + call * One::ELEMENTS}; }

  /// Where the element of column `i` of all of them and step `k` lies.
  __device__ __forceinline__ T* at(int i, int k) const {
    const int call = CALLS > 1 ? i / WIDTH : 0;
    return (*this)[call].at(i - call * WIDTH, k);
  }
};

template <class T, int WIDTH, int EXTENT, int DEPTH> struct PanelOf<Stack<const T, WIDTH>, T, EXTENT, DEPTH, Major::MN> {
  using Type = StackPanel<T, WIDTH, DEPTH>;
  static_assert(EXTENT == CALLS * WIDTH, "a tile has the columns of all calls");
};

/// Brings their panels into shared memory.
template <class T, int WIDTH, int DEPTH, int THREADS> class Loader<StackPanel<T, WIDTH, DEPTH>, THREADS> {
  Loader<Panel<T, WIDTH, DEPTH, Major::MN>, THREADS> of[CALLS];

 public:
  __device__ __forceinline__ void begin(const Stack<const T, WIDTH>& from, int i, int k) {
#pragma unroll
    for (int call = 0; call < CALLS; call++) of[call].begin(from[call], i, k);
  }
  __device__ __forceinline__ void load(const StackPanel<T, WIDTH, DEPTH>& panel) {
#pragma unroll
    for (int call = 0; call < CALLS; call++) of[call].load(panel[call]);
  }
};

}  // namespace graft

/// The parameters of a kernel that are something of each call, and the `Each` that they make.
#define GRAFT_EACH(type, name) type name##_0, type name##_1, type name##_2, type name##_3
#define GRAFT_OF_EACH(name) {name##_0, name##_1, name##_2, name##_3}
