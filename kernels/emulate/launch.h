//! What runs kernels on the emulator: launches, and the table of entry points of a program.
#pragma once
#include "emulate/emulate.h"
#include <functional>
#include <utility>

namespace graft::emulate {

/// Who gets the next turn. Results must not depend on it.
enum class Order : u64 { Forward, Reverse, Random, GreedyWarp, GreedyWarpReverse };

struct Launch {
  Dim3 grid, block;
  size_t shared = 0;
  /// The kernel with its arguments.
  std::function<void()> kernel;
  Order order = Order::Forward;
  u64 seed = 1;
};

/// Runs all blocks, one after another.
void launch(const Launch& launch);

/// A kernel that can be launched by name, with arguments as `cuLaunchKernel` takes them.
struct Entry {
  const char* name;
  std::vector<size_t> sizes;
  void (*call)(void** arguments);
};

template <class... P, size_t... I> void call(void (*kernel)(P...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<P*>(arguments[I])...);
}

template <auto KERNEL, class... P> Entry entry(const char* name, void (*)(P...)) {
  return {name, {sizeof(P)...}, [](void** arguments) { call(KERNEL, arguments, std::index_sequence_for<P...>{}); }};
}

template <auto KERNEL> Entry entry(const char* name) { return entry<KERNEL>(name, KERNEL); }

/// The entry points of a library, which it hands out by `graft_entries`.
using Entries = std::vector<Entry>;

}  // namespace graft::emulate
