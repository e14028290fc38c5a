#include <cstring>

#include "tests/simt/block.h"
#include "tests/simt/race.h"

namespace voca::simt::host {

namespace {

constexpr std::size_t kCopyBytes = 16;

void land(Copy& copy) {
  if (copy.landed) return;
  if (copy.valid) {
    std::memcpy(copy.to, copy.from, kCopyBytes);
  } else {
    std::memset(copy.to, 0, kCopyBytes);
  }
  copy.landed = true;
}

bool lands_at_once() {
  switch (schedule().landing) {
    case Landing::kLate:
      return false;
    case Landing::kEager:
      return true;
    case Landing::kRandom:
      return block().toss_coin();
  }
  return false;
}

}  // namespace

void cp_async_16(void* shared, const void* global, bool valid, Site site) {
  const auto misaligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % kCopyBytes != 0; };
  if (misaligned(shared) || misaligned(global))
    block().fail("cp.async at " + text(site) + ": an address is not a multiple of 16");
  if (!block().shared().contains(shared))
    block().fail("cp.async at " + text(site) + ": the destination is not in shared memory");
  Copy copy{static_cast<std::byte*>(shared), static_cast<const std::byte*>(global), valid, false, site};
  if (valid) race_detector().access(global, kCopyBytes, AccessKind::kRead, {nullptr, site});
  race_detector().copy_begins(shared, kCopyBytes, {nullptr, site});
  if (lands_at_once()) {
    land(copy);
  } else {
    std::memset(copy.to, 0xFF, kCopyBytes);  // the old contents may be lost from now on
  }
  block().current().open_group.push_back(copy);
}

void cp_async_commit() {
  Thread& me = block().current();
  me.groups.push_back(std::move(me.open_group));
  me.open_group.clear();
}

void cp_async_wait(int pending) {
  Thread& me = block().current();
  while (me.groups.size() > static_cast<std::size_t>(pending)) {
    for (Copy& copy : me.groups.front()) {
      land(copy);
      race_detector().copy_ends(copy.to, kCopyBytes, {nullptr, copy.site});
    }
    me.groups.pop_front();
  }
}

}  // namespace voca::simt::host
