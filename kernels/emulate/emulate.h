//! The host half of the dialect: every CUDA thread is a fiber (`emulate.cc`), and what the threads of a block or of a
//! warp do together happens as the PTX ISA says, as late and in as unkind an order as it allows.
//!
//! What stands in this file touches the kernel's memory and is built with the sanitizers' instrumentation; what the
//! scheduler does is not.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <source_location>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define threadIdx (graft::emulate::running->thread)
#define blockIdx (graft::emulate::running->block)
#define blockDim (graft::emulate::running->threads)
#define gridDim (graft::emulate::running->blocks)

namespace graft {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using i64 = int64_t;

struct bf16 {
  u16 bits;
};
struct f16 {
  u16 bits;
};

namespace emulate {

using At = std::source_location;

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

/// An asynchronous copy under way: `bytes` of 16, the rest zero.
struct Copy {
  void* to;
  const void* from;
  int bytes;
};

/// What a lane hands to a collective instruction of its warp, and gets back.
struct Lane {
  u32 in[10], out[4];
};
struct Warp;
using Instruction = void (*)(Warp&);

/// The state of one CUDA thread that kernels see.
struct Thread {
  Dim3 thread, block, threads, blocks;
  unsigned lane = 0;
  char* shared = nullptr;
  /// Copies since the last commit, and the groups that were committed, oldest first.
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
};

/// The thread that is running.
extern Thread* running;

/// Counts of what was executed.
struct Statistics {
  u64 switches = 0, barriers = 0, mma = 0, ldmatrix = 0, bank_conflicts = 0;
};
extern Statistics statistics;

/// Ends the program with a message that names the running thread.
[[noreturn]] void fail(const char* what, At at);

/// Waits for all threads of the block.
void barrier(At at);

/// One collective instruction: the lane's operands go in; when all 32 lanes have come, `instruction` computes their
/// results. It orders no memory ("Memory Consistency Model": the .sync of warp instructions is no fence).
void collective(Instruction instruction, const u32* in, int n_in, u32* out, int n_out, At at);

void matrices(Warp&);
void matrices_transposed(Warp&);
void mma_bf16(Warp&);
void mma_f16(Warp&);
void exchange(Warp&);

/// 8 bytes at a time: a call of memcpy would be seen by the sanitizers as another thread's.
inline void store16(void* to, u64 low, u64 high) {
  u64* words = static_cast<u64*>(to);
  words[0] = low;
  words[1] = high;
}

/// Lands a copy.
inline void land(const Copy& copy) {
  u64 words[2] = {0, 0};
  const u16* from = static_cast<const u16*>(copy.from);
  // Element by element: the source is valid for `bytes` only.
  for (int i = 0; i < copy.bytes / 2; i++) words[i / 4] |= static_cast<u64>(from[i]) << (16 * (i % 4));
  store16(copy.to, words[0], words[1]);
}

/// The lane reads its own row, so that the sanitizers see who reads what.
inline void load(Instruction instruction, u32 (&r)[4], const void* row, At at) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fail("ldmatrix: a row that is not 16-byte aligned", at);
  const u32* words = static_cast<const u32*>(row);
  const u32 offset = static_cast<u32>(static_cast<const char*>(row) - running->shared);
  const u32 in[5] = {words[0], words[1], words[2], words[3], offset};
  collective(instruction, in, 5, r, 4, at);
}

}  // namespace emulate

inline char* shared_memory() { return emulate::running->shared; }

inline void sync_block(emulate::At at = emulate::At::current()) { emulate::barrier(at); }

/// The destination is NaN until the copy lands, at the wait and no sooner.
inline void copy_async(void* shared, const void* global, int bytes, emulate::At at = emulate::At::current()) {
  const uintptr_t addresses = reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global);
  if (addresses % 16 != 0) emulate::fail("cp.async: an address that is not 16-byte aligned", at);
  if (bytes < 0 || bytes > 16) emulate::fail("cp.async: a size that is not 0 to 16", at);
  emulate::store16(shared, ~0ull, ~0ull);
  emulate::running->open.push_back({shared, global, bytes});
}

inline void copy_async(void* shared, const void* global, emulate::At at = emulate::At::current()) {
  copy_async(shared, global, 16, at);
}

inline void copy_commit() {
  emulate::running->groups.push_back(std::move(emulate::running->open));
  emulate::running->open.clear();
}

template <int PENDING> inline void copy_wait() {
  auto& groups = emulate::running->groups;
  while (groups.size() > PENDING) {
    for (const emulate::Copy& copy : groups.front()) emulate::land(copy);
    groups.pop_front();
  }
}

inline void load_matrices(u32 (&r)[4], const void* row, emulate::At at = emulate::At::current()) {
  emulate::load(emulate::matrices, r, row, at);
}

inline void load_matrices_transposed(u32 (&r)[4], const void* row, emulate::At at = emulate::At::current()) {
  emulate::load(emulate::matrices_transposed, r, row, at);
}

inline float as_float(u32 bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline u32 as_bits(float x) {
  u32 bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline double as_double(u64 bits) {
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline u64 as_bits(double x) {
  u64 bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float round_up(float x) { return std::ceil(x); }
inline float round_down(float x) { return std::floor(x); }
inline float round_even(float x) { return std::nearbyint(x); }

inline float sqrt(float x) { return std::sqrt(x); }
inline double sqrt(double x) { return std::sqrt(x); }

template <class T>
inline void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, emulate::At at = emulate::At::current()) {
  const emulate::Instruction instruction = sizeof(T) == 2 && std::is_same_v<T, bf16> ? emulate::mma_bf16 : emulate::mma_f16;
  const u32 in[10] = {a[0], a[1], a[2], a[3], b0, b1, as_bits(c[0]), as_bits(c[1]), as_bits(c[2]), as_bits(c[3])};
  u32 out[4];
  emulate::collective(instruction, in, 10, out, 4, at);
  for (int i = 0; i < 4; i++) c[i] = as_float(out[i]);
}

inline u32 shuffle_xor(u32 x, int mask, emulate::At at = emulate::At::current()) {
  const u32 in[2] = {x, emulate::running->lane ^ static_cast<u32>(mask)};
  u32 out[1];
  emulate::collective(emulate::exchange, in, 2, out, 1, at);
  return out[0];
}

[[noreturn]] inline void refuse(const char* why, emulate::At at = emulate::At::current()) { emulate::fail(why, at); }

inline float to_float(bf16 x) { return as_float(static_cast<u32>(x.bits) << 16); }

inline float to_float(f16 x) {
  const u32 sign = (x.bits & 0x8000u) << 16, exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  if (exponent == 31) return as_float(sign | 0x7f800000u | fraction << 13);
  if (exponent != 0) return as_float(sign | (exponent + 112) << 23 | fraction << 13);
  return std::copysign(std::ldexp(static_cast<float>(fraction), -24), as_float(sign | 0x3f800000u));
}

template <class T> inline T from_float(float x);

/// NaN becomes the one NaN that `cvt` makes, 0x7fff.
template <> inline bf16 from_float<bf16>(float x) {
  const u32 u = as_bits(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {static_cast<u16>((u + 0x7fffu + (u >> 16 & 1)) >> 16)};
}

template <> inline f16 from_float<f16>(float x) {
  const u32 u = as_bits(x), sign = u >> 16 & 0x8000u, magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {0x7fff};
  // From 65520 on, half-way to the number after the largest, it is infinite; below 2^-14 it is subnormal.
  if (magnitude >= 0x477ff000u) return {static_cast<u16>(sign | 0x7c00u)};
  if (magnitude < 0x38800000u) {
    return {static_cast<u16>(sign | static_cast<u32>(std::nearbyint(std::ldexp(std::fabs(static_cast<double>(x)), 24))))};
  }
  const u32 rounded = magnitude + 0xfffu + (magnitude >> 13 & 1);
  return {static_cast<u16>(sign | (rounded - 0x38000000u) >> 13)};
}

inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

}  // namespace graft
