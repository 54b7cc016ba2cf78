//! A program that runs jobs: buffers and launches come in on the standard input, the buffers as the launches leave them
//! go out on the standard output. All numbers are 64 bits wide in the machine's order; `kernels/emulate/job.rs` is the
//! other side.
#include "emulate/launch.h"
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <map>
#include <memory>
#include <string>

namespace {

using namespace graft;
using namespace graft::emulate;

/// What follows each buffer in memory, more than a tile of a matrix; a kernel must leave it as it is.
constexpr size_t MARGIN = 64 << 10;
constexpr char UNTOUCHED = char(0xA5);

[[noreturn]] void refuse(const std::string& what) { fail(what.c_str(), At::current()); }

void read(void* to, size_t bytes) {
  if (fread(to, 1, bytes, stdin) != bytes) refuse("the job ends too early");
}

u64 number() {
  u64 n;
  read(&n, sizeof n);
  return n;
}

std::string text() {
  std::string s(number(), ' ');
  read(s.data(), s.size());
  return s;
}

/// Device memory: aligned as a driver's, and in sanitized builds not a byte longer than asked for.
struct Buffer {
  size_t bytes = number();
  std::unique_ptr<char, decltype(&free)> memory{allocate(bytes + margin()), &free};

  Buffer() {
    read(memory.get(), bytes);
    std::fill_n(memory.get() + bytes, margin(), UNTOUCHED);
  }
  static char* allocate(size_t bytes) {
    void* p = nullptr;
    if (posix_memalign(&p, 256, bytes) != 0) refuse("out of memory for a buffer");
    return static_cast<char*>(p);
  }
  static constexpr size_t margin() {
#if defined(GRAFT_ASAN) || defined(GRAFT_TSAN)
    return 0;
#else
    return MARGIN;
#endif
  }
  bool overrun() const {
    for (size_t i = 0; i < margin(); i++) {
      if (memory.get()[bytes + i] != UNTOUCHED) return true;
    }
    return false;
  }
};

/// The entry points of a library, which is kept to the end.
const Entries& entries(const std::string& path) {
  static std::map<std::string, const Entries*> loaded;
  const Entries*& known = loaded[path];
  if (known == nullptr) {
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) refuse(dlerror());
    void* symbol = dlsym(library, "graft_entries");
    if (symbol == nullptr) refuse(path + " has no table of its kernels");
    known = &reinterpret_cast<const Entries& (*)()>(symbol)();
  }
  return *known;
}

const Entry& find(const Entries& entries, const std::string& name) {
  for (const Entry& entry : entries) {
    if (name == entry.name) return entry;
  }
  refuse("no kernel is called " + name);
}

Dim3 dim3() {
  const u64 x = number(), y = number(), z = number();
  return {unsigned(x), unsigned(y), unsigned(z)};
}

/// The value of an argument of `size` bytes: a number, or a place in a buffer.
u64 argument(const std::vector<Buffer>& buffers, size_t size) {
  const u64 bytes = number(), buffer = number(), value = number();
  if (bytes != size) refuse("an argument of the wrong size");
  if (buffer == ~0ull) return value;
  if (buffer >= buffers.size() || value > buffers[buffer].bytes) refuse("a pointer into no buffer");
  return reinterpret_cast<u64>(buffers[buffer].memory.get()) + value;
}

void run(const std::vector<Buffer>& buffers, Order order, u64 seed) {
  const Entries& library = entries(text());
  const Entry& entry = find(library, text());
  Launch next;
  next.grid = dim3();
  next.block = dim3();
  next.shared = number();
  next.order = order;
  next.seed = seed;
  if (number() != entry.sizes.size()) refuse(std::string("the wrong number of arguments for ") + entry.name);
  std::vector<u64> values;
  for (size_t size : entry.sizes) values.push_back(argument(buffers, size));
  std::vector<void*> arguments;
  for (u64& value : values) arguments.push_back(&value);
  next.kernel = [&] { entry.call(arguments.data()); };
  launch(next);
  for (const Buffer& buffer : buffers) {
    if (buffer.overrun()) refuse(std::string("a store behind the end of a buffer by ") + entry.name);
  }
}

void job() {
  const Order order = static_cast<Order>(number());
  const u64 seed = number();
  std::vector<Buffer> buffers(number());
  statistics = {};
  for (u64 n = number(); n > 0; n--) run(buffers, order, seed);
  for (const Buffer& buffer : buffers) fwrite(buffer.memory.get(), 1, buffer.bytes, stdout);
  fwrite(&statistics, 1, sizeof statistics, stdout);
  fflush(stdout);
}

}  // namespace

int main() {
  for (int c = getchar(); c != EOF; c = getchar()) {
    ungetc(c, stdin);
    job();
  }
}
