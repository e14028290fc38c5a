#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/error.h"

namespace voca::engine {

// Messages between ranks: a frame is its payload's length in four bytes and the payload; a payload is its
// type in one byte and the fields in order. Numbers are little-endian, a text is its length in four bytes and
// its bytes. No field is read without a bound.

/// Bytes of a peer that are no message. It is dropped; nobody else is concerned.
class MalformedMessage : public Error {
 public:
  explicit MalformedMessage(const std::string& what) : Error(ExitCode::kIo, what) {}
};

enum class MessageType : std::uint8_t {
  // Handshake (handshake.h)
  kGreeting = 1,
  kHello,
  kAnswer,
  // Rendezvous and store (coordinator.h): asked by a rank
  kJoin = 16,
  kSet,
  kGet,
  kAdd,
  kHas,
  kGoodbye,
  // ... answered by rank 0
  kWaiting = 32,
  kMet,
  kEnd,
  kValue,
  kAbsent,
  kNumber,
  kDone,
  kRefused,
  // Watchdog: told by a rank
  kWatch = 48,
  kHeartbeat,
  kFailed,
  // ... and by rank 0
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
  MessageWriter& u8(std::uint8_t value);
  MessageWriter& u32(std::uint32_t value);
  MessageWriter& u64(std::uint64_t value);
  /// Bytes whose number the reader knows.
  MessageWriter& raw(std::string_view bytes);
  MessageWriter& text(std::string_view text);
  [[nodiscard]] std::string frame() const;

 private:
  std::string payload_;
};

/// Reads the fields of one payload, which must outlive it. Every method throws MalformedMessage where the
/// payload ends early or a text is longer than allowed.
class MessageReader {
 public:
  explicit MessageReader(std::string_view payload);
  [[nodiscard]] MessageType type() const { return type_; }
  /// Throws MalformedMessage when it is of another type.
  void expect(MessageType type) const;
  std::uint8_t u8();
  std::uint32_t u32();
  std::uint64_t u64();
  std::string raw(std::size_t size);
  std::string text(std::size_t longest);
  /// Nothing may be left.
  void finish() const;

 private:
  std::string_view take(std::size_t size);
  std::uint64_t number(std::size_t bytes);

  std::string_view rest_;
  MessageType type_{};
};

/// Cuts a stream of bytes into payloads.
class FrameBuffer {
 public:
  /// Frames with a longer payload are malformed.
  explicit FrameBuffer(std::size_t longest_payload) : longest_payload_(longest_payload) {}
  void append(std::string_view bytes) { bytes_.append(bytes); }
  /// Takes the next payload if all of it has come. Throws MalformedMessage for an empty or too long one.
  bool next(std::string& payload);
  /// What came behind the payloads taken.
  [[nodiscard]] std::string rest() const { return bytes_.substr(taken_); }
  [[nodiscard]] std::size_t size() const { return bytes_.size() - taken_; }

 private:
  std::size_t longest_payload_;
  std::string bytes_;
  std::size_t taken_ = 0;
};

}  // namespace voca::engine
