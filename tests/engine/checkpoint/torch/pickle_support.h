#pragma once

// Pickles written opcode by opcode: what no pickler would write.

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "engine/checkpoint/torch/pickle_opcodes.h"

namespace voca::engine::test {

template <typename T>
std::string little(T value) {
  std::string bytes;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    bytes += static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i) & 0xFFU);
  return bytes;
}

inline std::string op(Opcode opcode) {
  return {static_cast<char>(opcode)};
}

inline std::string repeat(const std::string& text, std::size_t count) {
  std::string result;
  result.reserve(text.size() * count);
  for (std::size_t i = 0; i < count; ++i) result += text;
  return result;
}

/// A whole pickle of protocol 2 around the opcodes that make its value.
inline std::string pickle_of(const std::string& body) {
  return op(Opcode::kProto) + '\x02' + body + op(Opcode::kStop);
}

inline std::string number(std::int64_t value) {
  return op(Opcode::kLong1) + '\x08' + little(value);
}

inline std::string text(std::string_view value) {
  return op(Opcode::kBinUnicode) + little(static_cast<std::uint32_t>(value.size())) + std::string(value);
}

inline std::string global(const std::string& module, const std::string& name) {
  return op(Opcode::kGlobal) + module + '\n' + name + '\n';
}

inline std::string put(std::uint8_t key) {
  return op(Opcode::kBinPut) + little(key);
}

inline std::string get(std::uint8_t key) {
  return op(Opcode::kBinGet) + little(key);
}

inline std::string tuple(std::initializer_list<std::string> items) {
  std::string result = op(Opcode::kMark);
  for (const std::string& item : items) result += item;
  return result + op(Opcode::kTuple);
}

inline std::string numbers(std::initializer_list<std::int64_t> values) {
  std::string result = op(Opcode::kMark);
  for (const std::int64_t value : values) result += number(value);
  return result + op(Opcode::kTuple);
}

inline std::string call(const std::string& callable, const std::string& arguments) {
  return callable + arguments + op(Opcode::kReduce);
}

inline std::string storage(const std::string& type, const std::string& key, std::int64_t elements) {
  return tuple({text("storage"), global("torch", type), text(key), text("cpu"), number(elements)}) +
         op(Opcode::kBinPersId);
}

/// A float32 tensor over storage "0" of sixteen elements, or what claims to be one.
inline std::string tensor(std::int64_t offset, const std::string& size, const std::string& stride,
                          const std::string& of = storage("FloatStorage", "0", 16)) {
  return call(global("torch._utils", "_rebuild_tensor_v2"),
              tuple({of, number(offset), size, stride, op(Opcode::kNewFalse),
                     call(global("collections", "OrderedDict"), op(Opcode::kEmptyTuple))}));
}

}  // namespace voca::engine::test
