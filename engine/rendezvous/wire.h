#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/error.h"
#include "engine/base/little_endian.h"

namespace voca::engine {

// Wire format of messages between ranks. A frame is the payload's length (four bytes) and the payload; a
// payload is its type (one byte) and its fields in order. Numbers are little-endian; a text is its length
// (four bytes) and its bytes. No field is read without a bound.

/// Bytes from a peer that are not a valid message. The peer is dropped; no other peer is affected.
class MalformedMessage : public Error {
 public:
  explicit MalformedMessage(const std::string& what) : Error(ExitCode::kIo, what) {}
};

enum class MessageType : std::uint8_t {
  // Handshake (handshake.h)
  kGreeting = 1,
  kHello,
  kAnswer,
  // Rendezvous and store (coordinator.h): requests of a rank
  kJoin = 16,
  kSet,
  kGet,
  kAdd,
  kHas,
  kGoodbye,
  // ... and responses of rank 0
  kWaiting = 32,
  kMet,
  kEnd,
  kValue,
  kAbsent,
  kNumber,
  kDone,
  kRefused,
  // Watchdog: reports of a rank
  kWatch = 48,
  kHeartbeat,
  kFailed,
  // ... and notifications of rank 0
  kPulse,
  kClosing,
  // Link probe (link_probe.h)
  kPing = 64,
  kPong,
  kLinked,
  kToken,
};

/// Builds one frame.
class MessageWriter {
 public:
  explicit MessageWriter(MessageType type);
  MessageWriter& u8(std::uint8_t value) { return number(value); }
  MessageWriter& u32(std::uint32_t value) { return number(value); }
  MessageWriter& u64(std::uint64_t value) { return number(value); }
  /// Appends bytes whose number the reader knows.
  MessageWriter& raw(std::string_view bytes);
  MessageWriter& text(std::string_view text);
  [[nodiscard]] std::string frame() const;

 private:
  template <typename T>
  MessageWriter& number(T value) {
    append_number(payload_, value);
    return *this;
  }

  std::string payload_;
};

/// Reads the fields of one payload, which must outlive the reader. Every method throws MalformedMessage when
/// the payload ends early or a text is longer than allowed.
class MessageReader {
 public:
  explicit MessageReader(std::string_view payload);
  [[nodiscard]] MessageType type() const { return type_; }
  /// Throws MalformedMessage when the message is of another type.
  void expect(MessageType type) const;
  std::uint8_t u8() { return number<std::uint8_t>(); }
  std::uint32_t u32() { return number<std::uint32_t>(); }
  std::uint64_t u64() { return number<std::uint64_t>(); }
  std::string raw(std::size_t size) { return std::string(take(size)); }
  std::string text(std::size_t longest);
  /// Throws MalformedMessage when bytes are left.
  void finish() const;

 private:
  std::string_view take(std::size_t size);
  template <typename T>
  T number() {
    return leading_number<T>(take(sizeof(T)));
  }

  std::string_view rest_;
  MessageType type_{};
};

/// Splits a stream of bytes into payloads.
class FrameBuffer {
 public:
  /// Frames with a longer payload are malformed.
  explicit FrameBuffer(std::size_t longest_payload) : longest_payload_(longest_payload) {}
  void append(std::string_view bytes) { bytes_.append(bytes); }
  /// Takes the next payload if it has arrived in full. Throws MalformedMessage if it is empty or too long.
  bool next(std::string& payload);
  /// Bytes received after the payloads taken.
  [[nodiscard]] std::string rest() const { return bytes_.substr(taken_); }
  [[nodiscard]] std::size_t size() const { return bytes_.size() - taken_; }

 private:
  std::size_t longest_payload_;
  std::string bytes_;
  std::size_t taken_ = 0;
};

}  // namespace voca::engine
