//! The device half of the dialect: thin wrappers around PTX. Section names are those of the PTX ISA.
#pragma once

namespace graft {

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;

struct bf16 {
  u16 bits;
};
struct f16 {
  u16 bits;
};

/// The block's dynamic shared memory.
__device__ __forceinline__ char* shared_memory() {
  extern __shared__ __align__(128) char memory[];
  return memory;
}

__device__ __forceinline__ void sync_block() { __syncthreads(); }

/// The address within the shared window, as `cp.async` and `ldmatrix` take it ("Generic Addressing").
__device__ __forceinline__ u32 shared_address(const void* p) { return static_cast<u32>(__cvta_generic_to_shared(p)); }

/// Begins to copy the first `bytes` of 16 bytes, both 16-byte aligned; the rest of the destination becomes zero
/// ("cp.async": src-size); none is read where `bytes` is 0. `.cg` goes past the L1 cache.
__device__ __forceinline__ void copy_async(void* shared, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :: "r"(shared_address(shared)), "l"(global), "r"(bytes) : "memory");
}

/// Begins to copy 16 bytes.
__device__ __forceinline__ void copy_async(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(shared_address(shared)), "l"(global) : "memory");
}

/// Closes the thread's group of copies ("cp.async.commit_group"); a group may be empty.
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until at most the last `PENDING` groups of this thread are under way ("cp.async.wait_group"). What other
/// threads copied is visible after the next barrier only.
template <int PENDING> __device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" :: "n"(PENDING) : "memory");
}

/// Four 8 × 8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8, and receives of each
/// matrix the elements (lane / 4, 2·(lane % 4)) and the one after it ("ldmatrix").
__device__ __forceinline__ void load_matrices(u32 (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

/// The same, of the transposed matrices.
__device__ __forceinline__ void load_matrices_transposed(u32 (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

/// c += a·b on 16 × 8 × 16 ("Matrix Fragments for mma.m16n8k16 with floating point type"); sums are in f32.
template <class T> __device__ __forceinline__ void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1);

template <> __device__ __forceinline__ void mma<bf16>(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <> __device__ __forceinline__ void mma<f16>(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float(static_cast<u32>(x.bits) << 16); }

__device__ __forceinline__ float to_float(f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

/// The nearest element, ties to even ("cvt": .rn).
template <class T> __device__ __forceinline__ T from_float(float x);

template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) {
  bf16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}

template <> __device__ __forceinline__ f16 from_float<f16>(float x) {
  f16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}

/// a·b + c, rounded once; the compiler is told not to make others by itself (`--fmad=false`).
__device__ __forceinline__ float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }

/// The value of the lane whose number differs in the bits of `mask` ("shfl.sync": .bfly), of a whole warp.
__device__ __forceinline__ u32 shuffle_xor(u32 x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }

/// Ends the kernel with an error, which the next call of the driver reports ("trap").
__device__ __forceinline__ void refuse(const char*) { asm volatile("trap;"); }

__device__ __forceinline__ float as_float(u32 bits) { return __uint_as_float(bits); }
__device__ __forceinline__ u32 as_bits(float x) { return __float_as_uint(x); }
__device__ __forceinline__ double as_double(u64 bits) { return __longlong_as_double(static_cast<i64>(bits)); }
__device__ __forceinline__ u64 as_bits(double x) { return static_cast<u64>(__double_as_longlong(x)); }

/// The nearest whole numbers: above, below, and ties to even.
__device__ __forceinline__ float round_up(float x) { return ceilf(x); }
__device__ __forceinline__ float round_down(float x) { return floorf(x); }
__device__ __forceinline__ float round_even(float x) { return rintf(x); }

/// The square root, rounded once.
__device__ __forceinline__ float sqrt(float x) { return __fsqrt_rn(x); }
__device__ __forceinline__ double sqrt(double x) { return __dsqrt_rn(x); }

}  // namespace graft
