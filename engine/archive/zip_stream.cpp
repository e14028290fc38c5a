#include <isa-l/igzip_lib.h>

#include <algorithm>
#include <array>

#include "engine/archive/zip_archive.h"
#include "engine/base/digest.h"
#include "engine/base/text.h"

namespace voca::engine {
namespace {

constexpr std::size_t kChunk = std::size_t{256} << 10;
/// Size of the first read of compressed bytes, enough for an array's header: isa-l inflates all its input,
/// and of most records only the start is read at first.
constexpr std::size_t kFirstChunk = 1024;

}  // namespace

struct ZipStream::Inflater {
  explicit Inflater(std::size_t chunk)
      : input(std::make_unique_for_overwrite<std::byte[]>(chunk)), input_size(chunk) {
    isal_inflate_init(&state);
    state.avail_in = 0;
  }
  std::unique_ptr<std::byte[]> input;
  std::size_t input_size;
  inflate_state state;
};

ZipStream::ZipStream(const ZipReader& zip, const ZipEntry& entry) : zip_(zip), entry_(entry) {
  if (entry.deflated)
    inflater_ = std::make_unique<Inflater>(std::min<std::uint64_t>(entry.stored_size, kChunk));
}

ZipStream::~ZipStream() = default;

void ZipStream::damaged() const {
  throw DataError("{}: record {} is damaged: not a deflate stream of {} bytes", zip_.path().string(),
                  printable(entry_.name), entry_.size);
}

void ZipStream::read(std::span<std::byte> out) {
  while (!out.empty()) {
    const std::span<std::byte> chunk = out.first(std::min(out.size(), kChunk));
    if (inflater_ != nullptr) {
      if (inflate(chunk) != chunk.size()) damaged();
    } else {
      VOCA_CHECK(chunk.size() <= entry_.size - position_);
      zip_.file().read(entry_.data_offset + position_, chunk);
      position_ += chunk.size();
    }
    crc_ = zip_crc32(chunk, crc_);
    out = out.subspan(chunk.size());
  }
}

void ZipStream::finish() {
  std::array<std::byte, 1> beyond{};
  if (inflater_ != nullptr && inflate(beyond) != 0) damaged();
  if (crc_ != entry_.crc32) {
    throw ZipChecksumError(
        "{}: record {} is damaged (CRC-32 {:08x}, the directory says {:08x}); restore the file from a copy",
        zip_.path().string(), printable(entry_.name), crc_, entry_.crc32);
  }
}

/// Inflates until `out` is full or the stream ends; returns the number of bytes written.
std::size_t ZipStream::inflate(std::span<std::byte> out) {
  inflate_state& state = inflater_->state;
  state.next_out = reinterpret_cast<std::uint8_t*>(out.data());
  state.avail_out = static_cast<std::uint32_t>(out.size());
  while (state.avail_out > 0 && state.block_state != ISAL_BLOCK_FINISH) {
    const bool buffered = state.tmp_out_processed < state.tmp_out_valid;  // inflated but not returned yet
    const bool starved = state.avail_in == 0 && !buffered;
    if (const std::uint64_t left = entry_.stored_size - position_; starved && left > 0) {
      const auto count =
          std::min<std::uint64_t>({left, inflater_->input_size, position_ == 0 ? kFirstChunk : kChunk});
      const std::span input(inflater_->input.get(), count);
      zip_.file().read(entry_.data_offset + position_, input);
      position_ += count;
      state.next_in = reinterpret_cast<std::uint8_t*>(input.data());
      state.avail_in = static_cast<std::uint32_t>(count);
    }
    const std::uint32_t before = state.avail_out;
    if (isal_inflate(&state) != ISAL_DECOMP_OK) damaged();
    // Without input left and without output produced, the stream ends before its last block.
    if (starved && state.avail_in == 0 && position_ == entry_.stored_size && state.avail_out == before &&
        state.block_state != ISAL_BLOCK_FINISH)
      damaged();
  }
  return out.size() - state.avail_out;
}

}  // namespace voca::engine
