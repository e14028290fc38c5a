#include "tests/simt/block.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>

#include "tests/simt/race.h"

namespace voca::simt::host {

namespace {

// Thrown to unwind the remaining fibers after a defect was found.
struct Unwind {};

std::string in_brackets(const uint3& index) {
  return "(" + std::to_string(index.x) + "," + std::to_string(index.y) + "," + std::to_string(index.z) + ")";
}

// Formats ascending numbers as "3, 7-9".
std::string ranges(const std::vector<int>& numbers) {
  std::string out;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    out += (i > 0 ? ", " : "") + std::to_string(numbers[i]);
    if (last > i) out += "-" + std::to_string(numbers[last]);
    i = last + 1;
  }
  return out;
}

}  // namespace

Builtins builtins{};

Block& block() {
  static Block the_block;
  return the_block;
}

std::string text(const Site& site) {
  const std::string file = site.file;
  return file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(site.line);
}

std::string Block::place() const {
  std::string out = std::string("kernel ") + kernel_ + ", block " + in_brackets(builtins.block_index);
  if (current_ != nullptr) out += ", thread " + in_brackets(current_->index);
  return out;
}

void Block::fail(const std::string& what) const {
  throw Defect(place() + ": " + what);
}

std::string Block::who_waits_where() const {
  std::map<std::string, std::vector<int>> groups;
  for (const Thread& thread : threads_) {
    std::string state = "ready";
    if (thread.state == State::kExited) state = "exited";
    if (thread.state == State::kAtBarrier || thread.state == State::kAtWarpOperation)
      state = std::string("wait in ") + thread.what + " at " + text(thread.site);
    groups[state].push_back(thread.number);
  }
  std::string out;
  for (const auto& [state, numbers] : groups) out += "\n  threads " + ranges(numbers) + ": " + state;
  return out;
}

void Block::enter(void* self) {
  static_cast<Block*>(self)->run_thread();
}

void Block::run_thread() {
  if (defect_ != nullptr) {
    current_->state = State::kExited;
    return;
  }
  try {
    call_(closure_);
    exit_thread(*current_);
  } catch (const Unwind&) {
  } catch (...) {
    if (defect_ == nullptr) defect_ = std::current_exception();
  }
  current_->state = State::kExited;
}

void Block::exit_thread(Thread& thread) {
  for (auto& group : thread.groups)
    thread.open_group.insert(thread.open_group.end(), group.begin(), group.end());
  if (!thread.open_group.empty())
    fail("exits with a cp.async it never waited for, issued at " + text(thread.open_group.front().site));
  if (at_barrier_ > 0) fail("divergent barrier: exits while others wait:" + who_waits_where());
  const unsigned lane = 1U << static_cast<unsigned>(thread.number % kWarp);
  const std::size_t number = static_cast<std::size_t>(thread.number) / kWarp;
  Warp& warp = warps_[number];
  for (unsigned waiting = warp.waiting; waiting != 0; waiting &= waiting - 1) {
    const Thread& other = threads_[number * kWarp + static_cast<unsigned>(std::countr_zero(waiting))];
    if ((other.mask & lane) != 0)
      fail("warp divergence: exits while others wait for it:" + who_waits_where());
  }
  thread.state = State::kExited;
  --alive_;
  warp.alive &= ~lane;
}

void Block::start_threads() {
  stacks_.reserve(threads_.size());
  for (std::size_t i = 0; i < threads_.size(); ++i) {
    Thread& thread = threads_[i];
    thread.state = State::kReady;
    thread.open_group.clear();
    thread.groups.clear();
    // Stack tops at different page offsets, so that the stacks do not all map to the same few cache lines.
    thread.fiber.start(stacks_.stack(i), FiberStacks::kStackBytes - 64 * (i % 32), &Block::enter, this);
  }
}

bool Block::run_ready(std::size_t begin, std::size_t end, bool until_all_wait) {
  bool ran = false;
  for (bool again = true; again;) {
    again = false;
    for (std::size_t i = begin; i < end; ++i) {
      Thread& thread = threads_[turn_[i]];
      if (thread.state == State::kExited) continue;
      // After a defect, every thread runs once more to unwind its stack.
      if (thread.state != State::kReady && defect_ == nullptr) continue;
      current_ = &thread;
      builtins.thread_index = thread.index;
      race_detector().set_thread(thread.number);
      thread.fiber.resume();
      race_detector().set_thread(-1);
      current_ = nullptr;
      ran = true;
      again = until_all_wait && defect_ == nullptr;
    }
  }
  return ran;
}

void Block::schedule_threads() {
  const Order order = schedule().order;
  const auto exited = [](const Thread& thread) { return thread.state == State::kExited; };
  while (!std::all_of(threads_.begin(), threads_.end(), exited)) {
    bool ran = false;
    if (order == Order::kRandom) {
      std::shuffle(turn_.begin(), turn_.end(), random_);
      ran = run_ready(0, turn_.size(), false);
    } else {
      for (std::size_t warp = 0; warp < turn_.size(); warp += kWarp)
        ran |= run_ready(warp, std::min(warp + kWarp, turn_.size()), true);
    }
    if (!ran && defect_ == nullptr)
      defect_ = std::make_exception_ptr(Defect(place() + ": deadlock:" + who_waits_where()));
  }
}

void Block::run(const char* kernel, const LaunchShape& shape, uint3 index, void (*call)(void*), void* closure,
                std::uint64_t seed) {
  const dim3 size = shape.block;
  kernel_ = kernel;
  call_ = call;
  closure_ = closure;
  defect_ = nullptr;
  random_.seed(seed);
  builtins.block_index = index;
  builtins.block_size = size;
  builtins.grid_size = shape.grid;
  shared_.reset(shape.shared_bytes);
  race_detector().new_block();
  threads_.resize(std::size_t{size.x} * size.y * size.z);
  alive_ = threads_.size();
  at_barrier_ = 0;
  turn_.resize(threads_.size());
  warps_.assign((threads_.size() + kWarp - 1) / kWarp, {});
  for (std::size_t i = 0; i < threads_.size(); ++i) {
    Thread& thread = threads_[i];
    thread.number = static_cast<int>(i);
    const auto n = static_cast<unsigned>(i);
    thread.index = {n % size.x, n / size.x % size.y, n / size.x / size.y};
    warps_[i / kWarp].alive |= 1U << (n % kWarp);
    turn_[i] = schedule().order == Order::kReverse ? threads_.size() - 1 - i : i;
  }
  start_threads();
  schedule_threads();
  if (defect_ != nullptr) std::rethrow_exception(defect_);
}

void Block::suspend() {
  current_->fiber.suspend();
  if (defect_ != nullptr) throw Unwind{};
}

void Block::release_barrier() {
  for (Thread& thread : threads_)
    if (thread.state == State::kAtBarrier) thread.state = State::kReady;
  at_barrier_ = 0;
  race_detector().block_barrier();
}

// Stricter than the device, which lets threads exit early and ignores the call site of a barrier.
// warp_collective is stricter too: its mask must not name a lane that has exited.
void Block::barrier(const char* what, Site site) {
  Thread& me = current();
  me.what = what;
  me.site = site;
  if (alive_ != threads_.size()) {
    fail(std::string("divergent barrier: ") + what + " at " + text(site) +
         " after others have exited:" + who_waits_where());
  }
  if (at_barrier_ == 0) {
    barrier_site_ = site;
  } else if (barrier_site_.line != site.line || std::strcmp(barrier_site_.file, site.file) != 0) {
    fail(std::string("divergent barrier: ") + what + " at " + text(site) +
         " while others wait elsewhere:" + who_waits_where());
  }
  me.state = State::kAtBarrier;
  if (++at_barrier_ == alive_) {
    release_barrier();
  } else {
    suspend();
  }
}

void Block::warp_collective(unsigned mask, WarpFunction f, void* argument, const char* what, Site site) {
  Thread& me = current();
  const auto lane = static_cast<unsigned>(me.number % kWarp);
  const std::size_t first = static_cast<std::size_t>(me.number) - lane;
  Warp& warp = warps_[first / kWarp];
  if ((mask >> lane & 1U) == 0) {
    fail(std::string(what) + " at " + text(site) + ": the mask does not name the calling lane " +
         std::to_string(lane));
  }
  if ((mask & ~warp.alive) != 0) {
    fail("warp divergence: " + std::string(what) + " at " + text(site) +
         " names lanes that have exited or never were");
  }
  me.what = what;
  me.site = site;
  me.mask = mask;
  me.function = f;
  me.argument = argument;
  for (unsigned i = 0; i < kWarp; ++i) {
    if ((warp.waiting & mask & 1U << i) == 0) continue;
    const Thread& other = threads_[first + i];
    if (other.mask != mask || other.function != f) {
      fail(std::string("warp divergence: ") + what + " at " + text(site) + ", while lane " +
           std::to_string(i) + " waits in " + other.what + " at " + text(other.site));
    }
  }
  me.state = State::kAtWarpOperation;
  warp.waiting |= 1U << lane;
  if ((warp.waiting & mask) != mask) {
    suspend();
    return;
  }
  void* lanes[kWarp] = {};
  for (unsigned i = 0; i < kWarp; ++i) {
    if ((mask >> i & 1U) == 0) continue;
    lanes[i] = threads_[first + i].argument;
    threads_[first + i].state = State::kReady;
  }
  warp.waiting &= ~mask;
  f(lanes, mask);
}

}  // namespace voca::simt::host
