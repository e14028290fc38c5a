#include "tests/simt/race.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>

#include "tests/simt/block.h"
#include "tests/simt/executor.h"

namespace voca::simt::host {

RaceDetector& race_detector() {
  static RaceDetector detector(block().shared().memory(), SharedMemory::kBytes);
  return detector;
}

#if !defined(VOCA_SIMT_RACE)

bool detects_races() {
  return false;
}

#else

bool detects_races() {
  return true;
}

namespace {

std::string command_output(const std::string& command) {
  std::string out;
  FILE* pipe = popen(command.c_str(), "r");  // NOLINT(cert-env33-c): our own binary's addresses
  if (pipe == nullptr) return out;
  char line[512];
  if (std::fgets(line, sizeof line, pipe) != nullptr) out = line;
  pclose(pipe);
  return out.substr(0, out.find('\n'));
}

// File and line of an access, from addr2line if it is installed.
std::string text(const AccessSite& where) {
  if (where.site.file != nullptr) return text(where.site);
  Dl_info info{};
  if (dladdr(where.pc, &info) == 0) return "?";
  // pc is the return address of the hook; the access is the preceding instruction.
  const auto offset = static_cast<const char*>(where.pc) - static_cast<const char*>(info.dli_fbase) - 1;
  char address[32];
  std::snprintf(address, sizeof address, "%#tx", offset);
  const std::string line =
      command_output(std::string("addr2line -s -e '") + info.dli_fname + "' " + address + " 2>/dev/null");
  return line.empty() ? address : line.substr(0, line.find(" ("));
}

}  // namespace

RaceDetector::RaceDetector(const std::byte* shared, std::size_t bytes)
    : shared_{shared, bytes, std::vector<Cell>(bytes / kCellBytes)} {}

void RaceDetector::new_launch() {
  launch_start_ = epoch_ + 1;
  found_.clear();
  // A launch that ended with a defect may have left copies in flight.
  std::fill(shared_.cells.begin(), shared_.cells.end(), Cell{});
}

void RaceDetector::new_block() {
  block_start_ = ++epoch_;
}

RaceDetector::Stamp RaceDetector::now() const {
  return {epoch_, warp_epoch_[thread_ / kWarp], static_cast<std::int16_t>(thread_)};
}

// Whether no barrier orders an earlier access before the current access of the running thread.
bool RaceDetector::conflicts(const Stamp& earlier, bool shared) const {
  if (earlier.thread < 0 || earlier.epoch < launch_start_) return false;
  if (earlier.epoch < block_start_) return !shared;
  if (earlier.epoch != epoch_ || earlier.thread == thread_) return false;
  const bool same_warp = earlier.thread / kWarp == thread_ / kWarp;
  return !(same_warp && earlier.warp_epoch != warp_epoch_[thread_ / kWarp]);
}

// The cell stores only the last reader; if that is the running thread, other threads may have read before it.
bool RaceDetector::conflicts_with_readers(const Cell& cell, bool shared) const {
  const Stamp& read = cell.read;
  if (conflicts(read, shared)) return true;
  if (read.thread != thread_ || read.epoch != epoch_) return false;
  return cell.read_by_others || (cell.read_by_warp && read.warp_epoch == warp_epoch_[thread_ / kWarp]);
}

void RaceDetector::record_read(Cell& cell) const {
  const Stamp stamp = now();
  const bool same_epoch = cell.read.thread >= 0 && cell.read.epoch == epoch_;
  if (!same_epoch) {
    cell.read_by_warp = false;
    cell.read_by_others = false;
  } else if (cell.read.thread != stamp.thread) {
    const bool same_warp = cell.read.thread / kWarp == stamp.thread / kWarp;
    cell.read_by_warp |= same_warp;
    cell.read_by_others |= !same_warp;
  }
  cell.read = stamp;
}

void RaceDetector::found(const char* what, bool shared, std::size_t offset, const Stamp& other,
                         const AccessSite& where) {
  constexpr std::size_t kMax = 8;
  if (found_.size() >= kMax) return;
  for (const Found& known : found_) {
    const bool same_place = known.where.pc == where.pc && known.where.site.line == where.site.line;
    if (same_place && known.what.starts_with(what)) return;
  }
  std::string line = std::string(what) + (shared ? " in shared" : " in global") + " memory, byte " +
                     std::to_string(offset) + ": thread " + std::to_string(thread_) + " after thread " +
                     std::to_string(other.thread);
  if (other.epoch < block_start_) line += " of another block";
  found_.push_back({line, where});
}

void RaceDetector::touch(Cell& cell, bool shared, std::size_t offset, AccessKind kind,
                         const AccessSite& where) {
  if (cell.copying >= 0) {
    const Stamp copying{epoch_, 0, cell.copying};
    found("cp.async destination used before its wait", shared, offset, copying, where);
  }
  if (conflicts(cell.write, shared)) {
    found(kind == AccessKind::kWrite ? "write after write" : "read after write", shared, offset, cell.write,
          where);
  }
  if (kind == AccessKind::kRead) {
    record_read(cell);
    return;
  }
  if (conflicts_with_readers(cell, shared)) found("write after read", shared, offset, cell.read, where);
  cell.write = now();
}

RaceDetector::Region* RaceDetector::region_of(const void* address) {
  const auto* p = static_cast<const std::byte*>(address);
  const auto holds = [p](const Region& region) {
    return p >= region.first && p < region.first + region.bytes;
  };
  if (holds(shared_)) return &shared_;
  if (last_region_ < regions_.size() && holds(regions_[last_region_])) return &regions_[last_region_];
  for (std::size_t i = 0; i < regions_.size(); ++i) {
    if (!holds(regions_[i])) continue;
    last_region_ = i;
    return &regions_[i];
  }
  return nullptr;
}

void RaceDetector::access(const void* address, std::size_t bytes, AccessKind kind, const AccessSite& where) {
  if (thread_ < 0) return;
  Region* region = region_of(address);
  if (region == nullptr) return;
  const auto offset = static_cast<std::size_t>(static_cast<const std::byte*>(address) - region->first);
  const std::size_t end = std::min((offset + bytes + kCellBytes - 1) / kCellBytes, region->cells.size());
  for (std::size_t i = offset / kCellBytes; i < end; ++i)
    touch(region->cells[i], region == &shared_, offset, kind, where);
}

void RaceDetector::set_copying(const void* address, std::size_t bytes, int thread) {
  const auto offset = static_cast<std::size_t>(static_cast<const std::byte*>(address) - shared_.first);
  for (std::size_t i = offset / kCellBytes; i < (offset + bytes) / kCellBytes; ++i)
    shared_.cells[i].copying = static_cast<std::int16_t>(thread);
}

void RaceDetector::copy_begins(const void* address, std::size_t bytes, const AccessSite& where) {
  access(address, bytes, AccessKind::kWrite, where);
  set_copying(address, bytes, thread_);
}

void RaceDetector::copy_ends(const void* address, std::size_t bytes, const AccessSite& where) {
  set_copying(address, bytes, -1);
  access(address, bytes, AccessKind::kWrite, where);
}

void RaceDetector::watch(const void* memory, std::size_t bytes) {
  const std::size_t cells = (bytes + kCellBytes - 1) / kCellBytes;
  regions_.push_back({static_cast<const std::byte*>(memory), bytes, std::vector<Cell>(cells)});
}

void RaceDetector::unwatch(const void* memory) {
  std::erase_if(regions_, [memory](const Region& region) { return region.first == memory; });
}

std::string RaceDetector::report() const {
  std::string out;
  for (const Found& one : found_) out += "\n  race at " + text(one.where) + ": " + one.what;
  return out;
}

#endif

}  // namespace voca::simt::host
