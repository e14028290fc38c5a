#include "engine/rendezvous/wire.h"

namespace voca::engine {
namespace {

constexpr std::size_t kLengthBytes = sizeof(std::uint32_t);

}  // namespace

MessageWriter::MessageWriter(MessageType type) : payload_(1, static_cast<char>(type)) {}

MessageWriter& MessageWriter::raw(std::string_view bytes) {
  payload_.append(bytes);
  return *this;
}

MessageWriter& MessageWriter::text(std::string_view text) {
  u32(static_cast<std::uint32_t>(text.size()));
  return raw(text);
}

std::string MessageWriter::frame() const {
  std::string frame;
  frame.reserve(kLengthBytes + payload_.size());
  append_number(frame, static_cast<std::uint32_t>(payload_.size()));
  return frame + payload_;
}

MessageReader::MessageReader(std::string_view payload) : rest_(payload) {
  type_ = static_cast<MessageType>(u8());
}

void MessageReader::expect(MessageType type) const {
  if (type_ != type) {
    throw MalformedMessage(
        fmt::format("a message of type {}, expected {}", static_cast<int>(type_), static_cast<int>(type)));
  }
}

std::string_view MessageReader::take(std::size_t size) {
  if (size > rest_.size()) {
    throw MalformedMessage(
        fmt::format("a message that ends {} bytes before a field does", size - rest_.size()));
  }
  const std::string_view taken = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return taken;
}

std::string MessageReader::text(std::size_t longest) {
  const std::size_t size = u32();
  if (size > longest)
    throw MalformedMessage(fmt::format("a text of {} bytes, expected at most {}", size, longest));
  return raw(size);
}

void MessageReader::finish() const {
  if (!rest_.empty()) throw MalformedMessage(fmt::format("{} bytes behind a message's end", rest_.size()));
}

bool FrameBuffer::next(std::string& payload) {
  if (size() < kLengthBytes) return false;
  const std::string_view rest = std::string_view(bytes_).substr(taken_);
  const std::size_t length = leading_number<std::uint32_t>(rest);
  if (length == 0 || length > longest_payload_) {
    throw MalformedMessage(fmt::format("a message of {} bytes, expected 1 to {}", length, longest_payload_));
  }
  if (rest.size() < kLengthBytes + length) return false;
  payload = rest.substr(kLengthBytes, length);
  taken_ += kLengthBytes + length;
  if (taken_ == bytes_.size()) {
    bytes_.clear();
    taken_ = 0;
  } else if (taken_ > bytes_.size() / 2) {
    bytes_.erase(0, taken_);  // moves at most as many bytes as were taken
    taken_ = 0;
  }
  return true;
}

}  // namespace voca::engine
