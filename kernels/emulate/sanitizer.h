//! What the address and the thread sanitizer must be told of fibers. Without a sanitizer all of it is empty.
#pragma once
#include <cstddef>

#ifdef GRAFT_TSAN
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#endif
#ifdef GRAFT_ASAN
extern "C" {
void __sanitizer_start_switch_fiber(void** save, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* save, const void** bottom, size_t* size);
void __asan_unpoison_memory_region(const void* address, size_t size);
}
#endif

namespace graft::emulate::sanitizer {

#ifdef GRAFT_TSAN

inline constexpr bool FRESH_STACKS = true;
inline void acquire(char* object) { __tsan_acquire(object); }
inline void release(char* object) { __tsan_release(object); }

struct Main;
struct Fiber {
  void* shadow = nullptr;
  void create(char*, size_t) { shadow = __tsan_create_fiber(0); }
  void destroy() { __tsan_destroy_fiber(shadow); }
  inline void to_main(Main& main, bool ends);
  void resumed() {}
};
/// Switching does not synchronise (flag 1): only barriers order the memory of a block.
struct Main {
  void* shadow = __tsan_get_current_fiber();
  void to_fiber(Fiber& fiber) { __tsan_switch_to_fiber(fiber.shadow, 1); }
  void entered_fiber() {}
  void returned() {}
};
void Fiber::to_main(Main& main, bool) { __tsan_switch_to_fiber(main.shadow, 1); }

#else

inline constexpr bool FRESH_STACKS = false;
inline void acquire(char*) {}
inline void release(char*) {}

#ifdef GRAFT_ASAN

struct Main;
struct Fiber {
  char* stack = nullptr;
  size_t size = 0;
  void* fake = nullptr;
  void create(char* bottom, size_t bytes) {
    stack = bottom;
    size = bytes;
    __asan_unpoison_memory_region(bottom, bytes);
  }
  void destroy() {}
  inline void to_main(Main& main, bool ends);
  void resumed() { __sanitizer_finish_switch_fiber(fake, nullptr, nullptr); }
};
struct Main {
  const void* bottom = nullptr;
  size_t size = 0;
  void* fake = nullptr;
  void to_fiber(Fiber& fiber) { __sanitizer_start_switch_fiber(&fake, fiber.stack, fiber.size); }
  void entered_fiber() { __sanitizer_finish_switch_fiber(nullptr, &bottom, &size); }
  void returned() { __sanitizer_finish_switch_fiber(fake, nullptr, nullptr); }
};
void Fiber::to_main(Main& main, bool ends) {
  __sanitizer_start_switch_fiber(ends ? nullptr : &fake, main.bottom, main.size);
}

#else

struct Main;
struct Fiber {
  void create(char*, size_t) {}
  void destroy() {}
  void to_main(Main&, bool) {}
  void resumed() {}
};
struct Main {
  void to_fiber(Fiber&) {}
  void entered_fiber() {}
  void returned() {}
};

#endif
#endif

}  // namespace graft::emulate::sanitizer
