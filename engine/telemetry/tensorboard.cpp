#include "engine/telemetry/tensorboard.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "engine/base/atomic_file.h"
#include "engine/base/digest.h"
#include "engine/base/little_endian.h"
#include "engine/base/path_status.h"
#include "engine/base/terminal.h"

// Fields of tensorflow/core/util/event.proto and tensorflow/core/framework/summary.proto.

namespace voca::engine {
namespace {

/// Protobuf wire types.
enum class Wire : std::uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

/// A protobuf message under construction.
class Message {
 public:
  void add_varint(std::uint32_t field, std::uint64_t value) {
    key(field, Wire::kVarint);
    varint(value);
  }
  /// A double or a float.
  template <typename T>
  void add_real(std::uint32_t field, T value) {
    key(field, sizeof(T) == 8 ? Wire::kFixed64 : Wire::kFixed32);
    append_number(bytes_, value);
  }
  void add_bytes(std::uint32_t field, std::string_view value) {
    key(field, Wire::kBytes);
    varint(value.size());
    bytes_.append(value);
  }
  [[nodiscard]] const std::string& bytes() const { return bytes_; }

 private:
  void key(std::uint32_t field, Wire wire) {
    varint(std::uint64_t{field} << 3 | static_cast<std::uint64_t>(wire));
  }
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<char>(value | 0x80));
    bytes_.push_back(static_cast<char>(value));
  }

  std::string bytes_;
};

/// TFRecord masks its checksums, because a CRC over data with embedded CRCs is weak.
std::uint32_t masked_crc(std::string_view bytes) {
  const std::uint32_t crc = crc32c(std::as_bytes(std::span(bytes)));
  return std::rotr(crc, 15) + 0xA282EAD8U;
}

std::string framed(const std::string& payload) {
  std::string record;
  append_number(record, std::uint64_t{payload.size()});
  append_number(record, masked_crc(record));
  record += payload;
  append_number(record, masked_crc(payload));
  return record;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "host";
  return name.data();
}

Message event(double wall_time, std::int64_t step) {
  Message message;
  message.add_real(1, wall_time);
  message.add_varint(2, static_cast<std::uint64_t>(step));
  return message;
}

void collect_numbers(const std::string& prefix, const nlohmann::ordered_json& object,
                     std::vector<TensorBoardWriter::Scalar>& scalars) {
  for (const auto& [name, value] : object.items()) {
    const std::string tag = fmt::format("{}/{}", prefix, name);
    if (value.is_object()) collect_numbers(tag, value, scalars);
    if (value.is_number()) scalars.push_back({tag, value.get<double>()});
  }
}

}  // namespace

TensorBoardWriter::TensorBoardWriter(const std::filesystem::path& folder, Clock clock)
    : clock_(std::move(clock)) {
  if (!clock_) {
    clock_ = [] {
      return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    };
  }
  static std::atomic<int> count = 0;
  path_ = folder / fmt::format("events.out.tfevents.{:010}.{}.{}.{}", static_cast<std::int64_t>(clock_()),
                               host_name(), ::getpid(), count++);
  descriptor_.reset(::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666));
  if (!descriptor_) throw_errno(path_, "create");
  sync_folder(folder);
  Message version;
  version.add_real(1, clock_());
  version.add_bytes(3, "brain.Event:2");
  write_event(version.bytes());
}

void TensorBoardWriter::write(std::int64_t step, std::span<const Scalar> scalars) {
  if (scalars.empty()) return;
  Message summary;
  for (const Scalar& scalar : scalars) {
    Message value;
    value.add_bytes(1, scalar.tag);
    value.add_real(2, static_cast<float>(scalar.value));
    summary.add_bytes(1, value.bytes());
  }
  Message message = event(clock_(), step);
  message.add_bytes(5, summary.bytes());
  write_event(message.bytes());
}

void TensorBoardWriter::write(const nlohmann::ordered_json& line) {
  std::vector<Scalar> scalars;
  nlohmann::ordered_json numbers = line;
  numbers.erase("epoch");
  numbers.erase("step");
  collect_numbers(line.at("kind").get<std::string>(), numbers, scalars);
  write(line.at("step").get<std::int64_t>(), scalars);
}

void TensorBoardWriter::forget_from(std::int64_t step) {
  Message start;
  start.add_varint(1, 1);  // SessionLog.status = START
  Message message = event(clock_(), step);
  message.add_bytes(7, start.bytes());
  write_event(message.bytes());
}

void TensorBoardWriter::sync() {
  if (::fdatasync(descriptor_.get()) != 0) throw_errno(path_, "sync");
}

void TensorBoardWriter::write_event(const std::string& payload) {
  if (!write_at_once(descriptor_.get(), framed(payload))) throw_errno(path_, "write");
}

}  // namespace voca::engine
