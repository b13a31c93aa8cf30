#include "cuda/executor.h"

#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

namespace awq::cuda::executor {

Place here;

namespace {

[[noreturn]] void give_up(const char* why) {
  std::fprintf(stderr, "executor: block %d thread %d: %s\n", here.block, here.thread, why);
  std::abort();
}

// A switch by ucontext makes two system calls; on x86-64 it is a handful of instructions.
#if defined(__x86_64__)
extern "C" void awq_executor_switch(void** from, void* to);
asm(R"(
.text
.globl awq_executor_switch
.type awq_executor_switch, @function
awq_executor_switch:
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
.size awq_executor_switch, .-awq_executor_switch
)");

struct Fiber {
  void* top = nullptr;
  void begin(uint8_t* stack, size_t bytes, void (*entry)()) {
    auto** p = reinterpret_cast<void**>(stack + bytes);
    *--p = nullptr;  // where `entry` would return to; it never does
    *--p = reinterpret_cast<void*>(entry);
    p -= 6;  // registers that begin as anything
    std::fill_n(p, 6, nullptr);
    top = p;
  }
  void go_to(Fiber& next) { awq_executor_switch(&top, next.top); }
};
#else
struct Fiber {
  ucontext_t context{};
  void begin(uint8_t* stack, size_t bytes, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = bytes;
    makecontext(&context, entry, 0);
  }
  void go_to(Fiber& next) { swapcontext(&context, &next.context); }
};
#endif

constexpr size_t kStack = 128 << 10;

struct Copy {
  void* to;
  const void* from;
  bool valid;
};

struct Thread {
  Fiber fiber;
  std::unique_ptr<uint8_t[]> stack;
  enum class State { runs, at_barrier, done } state = State::runs;
  bool waited = false;
  std::vector<Copy> issued;
  std::deque<std::vector<Copy>> groups;  // committed, oldest first
};

/// A warp's part of a product of four.
struct GroupProduct {
  GroupSlot lanes[kWarp];
  float (*widen)(uint16_t);
};

struct Warp {
  std::vector<GroupProduct> products;  // that nobody waited for
  std::vector<int> lanes;              // threads, in the order in which they run
  size_t at = 0;                       // of them, the one that goes on
  uint64_t generation = 0;
  int arrived = 0;
  Collective kind{};
  alignas(16) uint8_t slots[2][kWarp * kSlot];
};

/// The machine. One block at a time.
struct Machine {
  uint64_t seed = 0;
  std::minstd_rand random;
  bool late_copies = false;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Fiber main;
  int current = 0;  // thread
  int live = 0;
  void (*body)(const void*) = nullptr;
  const void* argument = nullptr;
  Place place;

  bool chance(unsigned of) { return seed && random() % of == 0; }
  Thread& self() { return threads[size_t(current)]; }
  Warp& warp() { return warps[size_t(current / kWarp)]; }

  void resume(int thread, Fiber& from) {
    current = thread;
    here = place;
    here.thread = thread;
    from.go_to(threads[size_t(thread)].fiber);
  }
  /// Another lane of this warp goes on, or, where none can or chance says so, another warp.
  void yield(bool may_leave) {
    Warp& w = warp();
    const int me = current;
    if (!(may_leave && chance(16)))
      for (size_t i = 1; i < w.lanes.size(); ++i) {
        const size_t next = (w.at + i) % w.lanes.size();
        if (threads[size_t(w.lanes[next])].state != Thread::State::runs) continue;
        w.at = next;
        resume(w.lanes[next], threads[size_t(me)].fiber);
        return;
      }
    threads[size_t(me)].fiber.go_to(main);
  }
  bool can_run(const Warp& w) const {
    return std::ranges::any_of(w.lanes, [&](int t) { return threads[size_t(t)].state == Thread::State::runs; });
  }
  void start_block(int block, int count, int shared_bytes);
  void run_block();
};
Machine machine;

std::vector<int> order(int n) {
  std::vector<int> v(static_cast<size_t>(n));
  std::iota(v.begin(), v.end(), 0);
  if (machine.seed) std::shuffle(v.begin(), v.end(), machine.random);
  return v;
}

void entry() {
  machine.body(machine.argument);
  Thread& t = machine.self();
  if (!t.issued.empty() || !t.groups.empty()) give_up("it ends with asynchronous copies that it did not wait for");
  if (!machine.warp().products.empty()) give_up("it ends with products that it did not wait for");
  t.state = Thread::State::done;
  --machine.live;
  machine.yield(false);
  give_up("a thread that has ended went on");
}

void Machine::start_block(int block, int count, int shared_bytes) {
  place.block = block;
  place.threads = count;
  live = count;
  std::memset(place.shared, 0xff, size_t(shared_bytes));
  for (Thread& t : threads) {
    t.state = Thread::State::runs;
    t.waited = false;
    t.fiber.begin(t.stack.get(), kStack, entry);
  }
  for (size_t i = 0; i < warps.size(); ++i) {
    Warp& w = warps[i];
    w.lanes = order(kWarp);
    for (int& t : w.lanes) t += int(i) * kWarp;
    w.at = 0;
    w.arrived = 0;
  }
}

void Machine::run_block() {
  while (live > 0) {
    std::vector<Warp*> ready;
    for (Warp& w : warps)
      if (can_run(w)) ready.push_back(&w);
    if (ready.empty()) {  // all that live are at the barrier
      if (live != int(threads.size())) give_up("some threads ended and others wait at a barrier");
      for (Thread& t : threads) t.state = Thread::State::runs;
      continue;
    }
    Warp& w = *ready[seed ? random() % ready.size() : 0];
    while (threads[size_t(w.lanes[w.at])].state != Thread::State::runs) w.at = (w.at + 1) % w.lanes.size();
    resume(w.lanes[w.at], main);
  }
}

void perform(std::vector<Copy>& copies) {
  for (const Copy& c : copies)
    if (c.valid)
      std::memcpy(c.to, c.from, 16);
    else
      std::memset(c.to, 0, 16);
  copies.clear();
}

template <class Widen>
void multiply(uint8_t* all, Widen widen) {
  float a[16][16], b[16][8], d[16][8];
  MmaSlot s[kWarp];
  for (int l = 0; l < kWarp; ++l) std::memcpy(&s[l], all + l * kSlot, sizeof(MmaSlot));
  for (int l = 0; l < kWarp; ++l)
    for (int i = 0; i < 2; ++i) {  // the halves of registers, and columns of d
      const int g = l / 4, t = l % 4, k = 2 * t + i;
      const auto half = [&](uint32_t v) { return widen(uint16_t(v >> (16 * i))); };
      a[g][k] = half(s[l].a[0]), a[g + 8][k] = half(s[l].a[1]);
      a[g][k + 8] = half(s[l].a[2]), a[g + 8][k + 8] = half(s[l].a[3]);
      b[k][g] = half(s[l].b[0]), b[k + 8][g] = half(s[l].b[1]);
      d[g][k] = s[l].d[i], d[g + 8][k] = s[l].d[2 + i];
    }
  for (int k = 0; k < 16; ++k)
    for (int r = 0; r < 16; ++r)
      for (int c = 0; c < 8; ++c) d[r][c] += a[r][k] * b[k][c];
  for (int l = 0; l < kWarp; ++l)
    for (int i = 0; i < 2; ++i) {
      s[l].d[i] = d[l / 4][2 * (l % 4) + i];
      s[l].d[2 + i] = d[l / 4 + 8][2 * (l % 4) + i];
    }
  for (int l = 0; l < kWarp; ++l) std::memcpy(all + l * kSlot, s[l].d, sizeof(s[l].d));
}

/// b[k][token] as a descriptor without swizzle has it: bits 0 to 13 the address, 16 to 29 and 32 to 45 the distances of
/// the next eight k and the next eight tokens, all in 16 bytes.
const uint8_t* group_value(uint64_t b, int k, int token) {
  const auto field = [&](int bit) { return int64_t(b >> bit & 0x3fff) * 16; };
  return here.shared + field(0) + k / 8 * field(16) + token / 8 * field(32) + token % 8 * 16 + k % 8 * 2;
}

void multiply_group(const GroupProduct& p) {
  float a[16][16], b[16][128];
  for (int l = 0; l < kWarp; ++l)
    for (int i = 0; i < 8; ++i)  // register i / 2: rows g and g + 8, then the next eight k
      a[l / 4 + i / 2 % 2 * 8][2 * (l % 4) + i % 2 + i / 4 * 8] =
          p.widen(uint16_t(p.lanes[l].a[i / 2] >> (16 * (i % 2))));
  for (int k = 0; k < 16; ++k)
    for (int n = 0; n < 128; ++n) {
      uint16_t v;
      std::memcpy(&v, group_value(p.lanes[0].b, k, n), sizeof(v));
      b[k][n] = p.widen(v);
    }
  for (int l = 0; l < kWarp; ++l)
    for (int i = 0; i < 64; ++i) {
      const int row = l / 4 + i / 2 % 2 * 8, n = i / 4 * 8 + 2 * (l % 4) + i % 2;
      for (int k = 0; k < 16; ++k) p.lanes[l].d[i] += a[row][k] * b[k][n];
    }
}

void begin_group(uint8_t* all, float (*widen)(uint16_t)) {
  GroupProduct p{{}, widen};
  for (int l = 0; l < kWarp; ++l) {
    std::memcpy(&p.lanes[l], all + l * kSlot, sizeof(GroupSlot));
    if (p.lanes[l].b != p.lanes[0].b) give_up("the lanes of a product have different descriptors");
  }
  if (machine.late_copies)
    machine.warp().products.push_back(p);
  else
    multiply_group(p);
}

const std::vector<float>& table_f16() {
  static const std::vector<float> table = [] {
    std::vector<float> t(1 << 16);
    for (size_t i = 0; i < t.size(); ++i) t[i] = f16_to_f32(uint16_t(i));
    return t;
  }();
  return table;
}

}  // namespace

void mma_f16(uint8_t* all) {
  multiply(all, [table = table_f16().data()](uint16_t v) { return table[v]; });
}
void mma_bf16(uint8_t* all) { multiply(all, bf16_to_f32); }
void group_f16(uint8_t* all) {
  begin_group(all, [](uint16_t v) { return f16_to_f32(v); });
}
void group_bf16(uint8_t* all) {
  begin_group(all, [](uint16_t v) { return bf16_to_f32(v); });
}
void finish_groups(uint8_t*) {
  for (const GroupProduct& p : machine.warp().products) multiply_group(p);
  machine.warp().products.clear();
}

void set_seed(uint64_t seed) {
  machine.seed = seed;
  machine.random.seed(unsigned(seed));
  machine.late_copies = seed % 2 == 1;
}

void run(int blocks, int threads, int shared_bytes, void (*body)(const void*), const void* argument) {
  if (threads % kWarp != 0 || blocks < 1) give_up("a launch without whole warps, or without blocks");
  const auto shared = std::make_unique<Words4[]>(size_t(shared_bytes + 15) / 16);
  machine.place = {.thread = 0,
                   .threads = threads,
                   .block = 0,
                   .blocks = blocks,
                   .shared = reinterpret_cast<uint8_t*>(shared.get())};
  machine.body = body;
  machine.argument = argument;
  machine.threads.resize(size_t(threads));
  for (Thread& t : machine.threads)
    if (!t.stack) t.stack = std::make_unique_for_overwrite<uint8_t[]>(kStack);
  machine.warps.resize(size_t(threads / kWarp));
  for (int b : order(blocks)) {
    machine.start_block(b, threads, shared_bytes);
    machine.run_block();
  }
}

void set_waited() { machine.self().waited = true; }
void require_waited() {
  if (!machine.self().waited) give_up("it ends without having waited for earlier kernels");
}

void block_barrier() {
  if (machine.warp().arrived) give_up("it came to a barrier while its warp is in a collective");
  machine.self().state = Thread::State::at_barrier;
  machine.yield(false);
}

uint8_t* collective(Collective kind, const void* own, int bytes, void (*complete)(uint8_t*)) {
  Warp& w = machine.warp();
  const int lane = here.thread % kWarp;
  const uint64_t mine = w.generation;
  uint8_t* all = w.slots[mine % 2];
  if (w.arrived && w.kind != kind) give_up("its warp is in another collective");
  w.kind = kind;
  if (bytes) std::memcpy(all + lane * kSlot, own, size_t(bytes));
  if (++w.arrived == kWarp) {
    w.arrived = 0;
    ++w.generation;
    if (complete) complete(all);
    return all;
  }
  // Lanes that come back before all have arrived have none to wait for but those at a barrier or ended.
  for (int turns = 0; w.generation == mine; ++turns) {
    if (turns > 1 << 16) give_up("its warp never comes to the collective that it waits in");
    machine.yield(true);
  }
  return all;
}

void copy_async(void* to, const void* from, bool valid) {
  if (reinterpret_cast<uintptr_t>(to) % 16 || (valid && reinterpret_cast<uintptr_t>(from) % 16))
    give_up("an asynchronous copy of 16 bytes that are not aligned");
  std::vector<Copy>& issued = machine.self().issued;
  issued.push_back({to, from, valid});
  if (machine.late_copies) return;
  std::vector<Copy> now(1, issued.back());
  perform(now);
}

void commit_copies() {
  Thread& t = machine.self();
  t.groups.push_back(std::move(t.issued));
  t.issued.clear();
}

void wait_copies(int most) {
  Thread& t = machine.self();
  for (; int(t.groups.size()) > most; t.groups.pop_front())
    if (machine.late_copies) perform(t.groups.front());
}

}  // namespace awq::cuda::executor
