//! The scheduler of the emulator: a block's threads as fibers, switched in one of five orders; its barriers, its warps'
//! collective instructions, and what must not happen between them. Built without the sanitizers' instrumentation: of
//! what happens here they are told what a GPU would order and nothing more.
#include "emulate/launch.h"
#include "emulate/sanitizer.h"
#include "emulate/warp.h"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <sys/mman.h>

/// Saves the callee-saved registers and the stack of the present fiber, and goes on with those of another one.
extern "C" void graft_switch(void** save, void* to);
asm(R"(
.text
.globl graft_switch
.type graft_switch,@function
graft_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size graft_switch,.-graft_switch
)");

namespace graft::emulate {

Thread* running = nullptr;
Statistics statistics;

namespace {

constexpr size_t STACK = 64 << 10, GUARD = 4 << 10;

enum class State { Ready, AtBarrier, InWarp, Done };

struct Fiber : Thread {
  State state = State::Ready;
  At at;
  Warp* warp = nullptr;
  char* stack = nullptr;
  void* stack_pointer = nullptr;
  sanitizer::Fiber shadow;
};

/// Stacks with a guard page below each.
class Stacks {
 public:
  size_t size() const { return all_.size(); }

  char* get(size_t i) {
    if (i >= all_.size()) allocate();
    return all_[i] + GUARD;
  }

  ~Stacks() {
    for (char* p : all_) munmap(p, STACK + GUARD);
  }

 private:
  void allocate() {
    void* p = mmap(nullptr, STACK + GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED || mprotect(p, GUARD, PROT_NONE) != 0) fail("out of memory for stacks", At::current());
    all_.push_back(static_cast<char*>(p));
  }
  std::vector<char*> all_;
};

/// The order in which threads get their turn.
class Schedule {
 public:
  Schedule(Order order, u64 seed) : order_(order), state_(seed * 0x9E3779B97F4A7C15ull + 1) {}

  bool greedy() const { return order_ == Order::GreedyWarp || order_ == Order::GreedyWarpReverse; }

  /// The numbers below `n` in this round's order.
  std::vector<unsigned> round(unsigned n) {
    std::vector<unsigned> turn(n);
    std::iota(turn.begin(), turn.end(), 0u);
    if (order_ == Order::Reverse || order_ == Order::GreedyWarpReverse) std::reverse(turn.begin(), turn.end());
    if (order_ == Order::Random) {
      for (unsigned i = n; i > 1; i--) std::swap(turn[i - 1], turn[next() % i]);
    }
    return turn;
  }

 private:
  u64 next() {  // xorshift64
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    return state_ ^= state_ << 17;
  }
  Order order_;
  u64 state_;
};

class Block;
Block* present = nullptr;

class Block {
 public:
  Block(const Launch& launch, u64 number, char* shared, Stacks& stacks)
      : launch_(launch), fibers_(launch.block.x * launch.block.y * launch.block.z), warps_(fibers_.size() / 32) {
    // A race detector must not see two blocks share a stack.
    const size_t first = sanitizer::FRESH_STACKS ? stacks.size() : 0;
    for (unsigned i = 0; i < fibers_.size(); i++) prepare(i, number, shared, stacks.get(first + i));
  }
  ~Block() {
    for (Fiber& f : fibers_) f.shadow.destroy();
  }

  void run(Schedule& schedule) {
    present = this;
    while (done_ < fibers_.size()) {
      if (!(schedule.greedy() ? greedy_round(schedule) : round(schedule))) release_barrier();
    }
    present = nullptr;
    running = nullptr;
  }

  void barrier(At at) {
    Fiber& f = *current_;
    f.state = State::AtBarrier;
    f.at = at;
    sanitizer::release(&barrier_[phase_ % 2]);
    char* entered = &barrier_[phase_ % 2];
    leave();
    sanitizer::acquire(entered);
  }

  void collective(Instruction instruction, const u32* in, int n_in, u32* out, int n_out, At at) {
    Fiber& f = *current_;
    Warp& warp = *f.warp;
    for (int i = 0; i < n_in; i++) warp.lanes[f.lane].in[i] = in[i];
    if (warp.arrived == 0) {
      warp.instruction = instruction;
      warp.at = at;
    } else if (warp.instruction != instruction || warp.at.line() != at.line()) {
      fail("the lanes of a warp have diverged before a collective instruction", at);
    }
    if (++warp.arrived == 32) {
      instruction(warp);
      warp.arrived = 0;
      for (Fiber& other : fibers_) {
        if (other.warp == &warp && other.state == State::InWarp) other.state = State::Ready;
      }
    } else {
      f.state = State::InWarp;
      f.at = at;
      leave();
    }
    // No lane comes to the next instruction's results before all have read these.
    for (int i = 0; i < n_out; i++) out[i] = warp.lanes[f.lane].out[i];
  }

  const Fiber* current() const { return current_; }

 private:
  static void enter() {
    present->main_shadow_.entered_fiber();
    present->launch_.kernel();
    present->current_->state = State::Done;
    sanitizer::release(&ended);
    present->leave();
    abort();
  }

  void prepare(unsigned i, u64 number, char* shared, char* stack) {
    const Dim3 b = launch_.block, g = launch_.grid;
    Fiber& f = fibers_[i];
    f.threads = b;
    f.blocks = g;
    f.thread = {i % b.x, i / b.x % b.y, i / b.x / b.y};
    f.block = {unsigned(number % g.x), unsigned(number / g.x % g.y), unsigned(number / g.x / g.y)};
    f.lane = i % 32;
    f.warp = &warps_[i / 32];
    f.shared = shared;
    f.stack = stack;
    f.shadow.create(stack, STACK);
    // What `graft_switch` pops: six registers, the address to go to, and none to return to from there.
    void** top = reinterpret_cast<void**>(stack + STACK);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(enter);
    for (int r = 0; r < 6; r++) *--top = nullptr;
    f.stack_pointer = top;
  }

  /// Lets a fiber run until it waits or ends; whether it was ready.
  bool resume(Fiber& f) {
    if (f.state != State::Ready) return false;
    current_ = &f;
    running = &f;
    statistics.switches++;
    main_shadow_.to_fiber(f.shadow);
    graft_switch(&main_stack_pointer_, f.stack_pointer);
    main_shadow_.returned();
    if (f.state == State::Done) done_++;
    return true;
  }

  void leave() {
    Fiber& f = *current_;
    f.shadow.to_main(main_shadow_, f.state == State::Done);
    graft_switch(&f.stack_pointer, main_stack_pointer_);
    f.shadow.resumed();
  }

  bool round(Schedule& schedule) {
    bool any = false;
    for (unsigned i : schedule.round(fibers_.size())) any |= resume(fibers_[i]);
    return any;
  }

  /// The greatest skew between warps: each runs until it can go no further.
  bool greedy_round(Schedule& schedule) {
    bool any = false;
    for (unsigned w : schedule.round(warps_.size())) {
      for (bool again = true; again;) {
        again = false;
        for (unsigned i = 32 * w; i < 32 * w + 32; i++) again |= resume(fibers_[i]);
        any |= again;
      }
    }
    return any;
  }

  /// Nothing can run: all must be waiting at one and the same barrier.
  void release_barrier() {
    Fiber* first = nullptr;
    for (Fiber& f : fibers_) {
      current_ = &f;
      if (f.state == State::InWarp) fail("lanes wait in a collective instruction that others never reach", f.at);
      if (f.state == State::Done) continue;
      if (!first) first = &f;
      if (f.at.line() != first->at.line()) fail("the threads of a block wait at different barriers", f.at);
    }
    if (done_ != 0) fail("a barrier after some threads have returned", first->at);
    statistics.barriers++;
    phase_++;
    for (Fiber& f : fibers_) f.state = State::Ready;
  }

  const Launch& launch_;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  Fiber* current_ = nullptr;
  void* main_stack_pointer_ = nullptr;
  sanitizer::Main main_shadow_;
  size_t done_ = 0;
  u64 phase_ = 0;
  /// Two phases of barriers, so that a thread that comes early to the next does not order those that leave this one.
  char barrier_[2];
  static char ended;

  friend void graft::emulate::launch(const Launch&);
};
char Block::ended;

void check(const Launch& launch) {
  const u64 threads = u64(launch.block.x) * launch.block.y * launch.block.z;
  const u64 blocks = u64(launch.grid.x) * launch.grid.y * launch.grid.z;
  if (threads == 0 || threads > 1024 || threads % 32 != 0) fail("a block must have whole warps, 1024 threads at most", At::current());
  if (blocks == 0 || launch.grid.y > 65535 || launch.grid.z > 65535) fail("a grid of a size that CUDA refuses", At::current());
  if (launch.shared > 227 << 10) fail("more than 227 KiB of shared memory", At::current());
}

/// Shared memory of exactly the size asked for, holding NaN.
std::unique_ptr<char, decltype(&free)> shared_memory_of(size_t bytes) {
  char* p = static_cast<char*>(aligned_alloc(128, (std::max<size_t>(bytes, 1) + 127) / 128 * 128));
  std::fill_n(p, bytes, char(0xFF));
  return {p, &free};
}

}  // namespace

void fail(const char* what, At at) {
  fprintf(stderr, "emulator: %s (%s:%u)", what, at.file_name(), unsigned(at.line()));
  if (const Fiber* f = present ? present->current() : nullptr) {
    fprintf(stderr, ", block (%u, %u, %u), thread %u", f->block.x, f->block.y, f->block.z, f->thread.x);
  }
  fprintf(stderr, "\n");
  _Exit(99);
}

void barrier(At at) { present->barrier(at); }

void collective(Instruction instruction, const u32* in, int n_in, u32* out, int n_out, At at) {
  present->collective(instruction, in, n_in, out, n_out, at);
}

void launch(const Launch& launch) {
  check(launch);
  Schedule schedule(launch.order, launch.seed);
  static Stacks kept;
  Stacks fresh;
  Stacks& stacks = sanitizer::FRESH_STACKS ? fresh : kept;
  // Kept to the end: giving memory back between blocks would order them for a race detector.
  std::vector<std::unique_ptr<char, decltype(&free)>> shared;
  std::vector<std::unique_ptr<Block>> blocks;
  for (u64 number : schedule.round(launch.grid.x * launch.grid.y * launch.grid.z)) {
    if (!sanitizer::FRESH_STACKS) {
      shared.clear();
      blocks.clear();
    }
    shared.push_back(shared_memory_of(launch.shared));
    blocks.push_back(std::make_unique<Block>(launch, number, shared.back().get(), stacks));
    blocks.back()->run(schedule);
  }
  sanitizer::acquire(&Block::ended);
}

}  // namespace graft::emulate
