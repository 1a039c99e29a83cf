// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/emulator.h"

#include <setjmp.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define GPTQ_FIBERS_ARE_WATCHED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GPTQ_FIBERS_ARE_WATCHED 1
#endif
#endif
#if GPTQ_FIBERS_ARE_WATCHED
#include <sanitizer/common_interface_defs.h>
#endif

namespace gptq::cuda::emulator {

Place here;

namespace {

constexpr size_t stack_bytes = 128 << 10;
constexpr uint32_t threads_max = 1024;

struct Copy {
  void* to;
  const void* from;
  uint32_t group;
};

// Where threads wait for each other: the generation moves on when the last has come.
struct Meeting {
  uint32_t arrived = 0, generation = 0;
  void* lanes[32];
};

// A stack, as the address sanitizer wants to be told of every change to another.
struct Stack {
  const void* bottom = nullptr;
  size_t bytes = 0;
  void* fake = nullptr;
};
Stack scheduler_stack;

void leave([[maybe_unused]] Stack& from, [[maybe_unused]] const Stack& to) {
#if GPTQ_FIBERS_ARE_WATCHED
  __sanitizer_start_switch_fiber(&from.fake, to.bottom, to.bytes);
#endif
}
void arrive([[maybe_unused]] Stack& at, [[maybe_unused]] Stack* from = nullptr) {
#if GPTQ_FIBERS_ARE_WATCHED
  __sanitizer_finish_switch_fiber(at.fake, from ? &from->bottom : nullptr, from ? &from->bytes : nullptr);
#endif
}

// Begins as a ucontext, once; from then on it is switched by _setjmp and _longjmp, which make no system call, for block after block.
struct Fiber {
  ucontext_t context;
  jmp_buf place;
  bool begun = false;
  std::unique_ptr<std::byte[]> stack;
  Stack watched;
  bool done;
  const uint32_t* waits_for;  // a generation other than this one
  uint32_t seen;
  std::vector<Copy> copies;
  uint32_t group;
};

struct Block {
  std::vector<Fiber> fibers{threads_max};
  std::vector<uint8_t> shared;
  Meeting barrier, warps[threads_max / 32];
  uint32_t alive = 0;
  const std::function<void()>* kernel = nullptr;
  jmp_buf scheduler;
};
Block block;

[[noreturn]] void give_up(const char* why) {
  fprintf(stderr, "emulator: %s\n", why);
  abort();
}

void go_to_scheduler(Fiber& me) {
  if (!_setjmp(me.place)) {
    leave(me.watched, scheduler_stack);
    _longjmp(block.scheduler, 1);
  }
  arrive(me.watched, &scheduler_stack);
}

void enter() {
  Fiber& me = block.fibers[here.thread];
  arrive(me.watched, &scheduler_stack);
  for (;;) {
    (*block.kernel)();
    if (me.copies.size()) give_up("a thread ended with copies nobody waited for");
    me.done = true;
    if (--block.alive && block.barrier.arrived == block.alive) {
      block.barrier.arrived = 0;
      ++block.barrier.generation;
    }
    go_to_scheduler(me);
  }
}

void wait(const uint32_t& generation, uint32_t seen) {
  Fiber& me = block.fibers[here.thread];
  me.waits_for = &generation;
  me.seen = seen;
  const Place place = here;
  go_to_scheduler(me);
  here = place;
}

void start(uint32_t thread) {
  Fiber& f = block.fibers[thread];
  if (!f.stack) {
    f.stack = std::make_unique<std::byte[]>(stack_bytes);
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = stack_bytes;
    f.context.uc_link = nullptr;
    makecontext(&f.context, enter, 0);
    f.watched = {f.stack.get(), stack_bytes};
  }
  f.done = false;
  f.waits_for = nullptr;
  f.copies.clear();
  f.group = 0;
}

void resume(Fiber& f) {
  if (_setjmp(block.scheduler)) return arrive(scheduler_stack);
  leave(scheduler_stack, f.watched);
  if (f.begun) _longjmp(f.place, 1);
  f.begun = true;
  setcontext(&f.context);
}

void run_block(uint32_t threads, bool backwards) {
  for (uint32_t i = 0; i < threads; ++i) start(i);
  block.alive = threads;
  while (block.alive) {
    bool moved = false;
    for (uint32_t i = 0; i < threads; ++i) {
      const uint32_t thread = backwards ? threads - 1 - i : i;
      Fiber& f = block.fibers[thread];
      if (f.done || (f.waits_for && *f.waits_for == f.seen)) continue;
      f.waits_for = nullptr;
      here.thread = thread;
      resume(f);
      moved = true;
    }
    if (!moved) give_up("threads wait for others that never come");
  }
}

}  // namespace

void run(Grid grid, uint32_t threads, uint32_t shared_bytes, const std::function<void()>& kernel) {
  if (threads % 32 || threads > threads_max) give_up("a block has whole warps and at most 1024 threads");
  block.kernel = &kernel;
  // 16 bytes past the end are poisoned too; addresses are those of a 16-byte aligned array. Blocks come in one order or the other.
  for (uint32_t z = 0; z < grid.z; ++z)
    for (uint32_t y = 0; y < grid.y; ++y)
      for (uint32_t i = 0; i < grid.x; ++i) {
        const uint32_t x = (y + z) % 2 ? grid.x - 1 - i : i;
        block.shared.assign(shared_bytes + 32, 0xFF);
        here = {0, threads, {x, y, z}, grid};
        run_block(threads, (x + y + z) % 2);
      }
}

uint8_t* shared() {
  const auto at = reinterpret_cast<uintptr_t>(block.shared.data());
  return block.shared.data() + (16 - at % 16) % 16;
}

void block_barrier() {
  Meeting& m = block.barrier;
  const uint32_t seen = m.generation;
  if (++m.arrived < block.alive) return wait(m.generation, seen);
  m.arrived = 0;
  ++m.generation;
}

void warp_meeting(void* mine, void (*together)(void* const lanes[32])) {
  Meeting& m = block.warps[here.thread / 32];
  const uint32_t seen = m.generation;
  m.lanes[here.thread % 32] = mine;
  if (++m.arrived < 32) return wait(m.generation, seen);
  m.arrived = 0;
  ++m.generation;
  if (together) together(m.lanes);
}

void queue_copy(void* shared, const void* global) {
  if (reinterpret_cast<uintptr_t>(shared) % 16 || reinterpret_cast<uintptr_t>(global) % 16) give_up("copy_async of what is not aligned");
  Fiber& me = block.fibers[here.thread];
  me.copies.push_back({shared, global, me.group});
}

void commit_copies() { ++block.fibers[here.thread].group; }

void wait_copies(uint32_t groups_left) {
  Fiber& me = block.fibers[here.thread];
  size_t done = 0;
  while (done < me.copies.size() && me.copies[done].group + groups_left < me.group) {
    memcpy(me.copies[done].to, me.copies[done].from, 16);
    ++done;
  }
  me.copies.erase(me.copies.begin(), me.copies.begin() + static_cast<ptrdiff_t>(done));
}

void multiply(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  struct Mine {
    float* d;
    const uint32_t *a, *b;
  } mine{d, a, b};
  warp_meeting(&mine, [](void* const lanes[32]) {
    float wa[16][16], wb[16][8];
    const auto at = [](uint32_t pair, int i) { return kernels::float_from_half(static_cast<uint16_t>(pair >> (16 * i))); };
    for (int lane = 0; lane < 32; ++lane) {
      const Mine& m = *static_cast<const Mine*>(lanes[lane]);
      const int g = lane / 4, t = lane % 4;
      for (int i = 0; i < 2; ++i) {
        for (int r = 0; r < 4; ++r) wa[g + r % 2 * 8][r / 2 * 8 + 2 * t + i] = at(m.a[r], i);
        for (int r = 0; r < 2; ++r) wb[r * 8 + 2 * t + i][g] = at(m.b[r], i);
      }
    }
    for (int lane = 0; lane < 32; ++lane) {
      float* d = static_cast<const Mine*>(lanes[lane])->d;
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        double sum = d[i];
        for (int k = 0; k < 16; ++k) sum += double(wa[row][k]) * wb[k][column];
        d[i] = static_cast<float>(sum);
      }
    }
  });
}

}  // namespace gptq::cuda::emulator
