#pragma once

// The nodes that the pickle reader's opcodes build. Nodes refer to each other by index and are destroyed
// together, so no input can make a destructor recurse or leak a cycle.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/error.h"
#include "engine/checkpoint/torch/pickle_reader.h"

namespace voca::engine::pickle {

using NodeId = std::uint32_t;

struct Node {
  enum class Type : std::uint8_t {
    kNone,
    kBool,        // integer
    kInt,         // integer
    kUnsigned,    // integer: bit pattern of a value beyond int64
    kDouble,      // real
    kString,      // text
    kBytes,       // text
    kList,        // children
    kTuple,       // children
    kDict,        // children: key, value, key, value, …; attributes
    kTensor,      // object: TensorValue
    kGlobal,      // text: module.name
    kStorage,     // object: Storage, text: key, integer: DType or kUntyped
    kNumpyDType,  // text: "f8", integer: 1 if big-endian
    kInert,       // text: module.name, children; attributes; entries
  };
  Type type = Type::kNone;
  bool ordered_dict = false;
  std::int64_t integer = 0;
  double real = 0;
  std::string text;
  std::vector<NodeId> children;
  std::optional<NodeId> attributes;  // dict that BUILD set on a dict or an inert node
  std::optional<NodeId> entries;     // dict of items that were set by key on an inert node
  std::shared_ptr<const void> object;
};

inline constexpr std::int64_t kUntyped = -1;

/// All nodes of one pickle, within its limits.
class Nodes {
 public:
  Nodes(const PickleLimits& limits, std::string context) : limits_(limits), context_(std::move(context)) {}

  /// Creates a node. `cost` is in values of PickleLimits.
  NodeId make(Node::Type type, std::size_t cost = 1);
  /// Counts work that creates no node: items or bytes of text copied. This stops input that refers to one
  /// large value again and again.
  void charge_values(std::size_t count);
  void charge_text(std::uint64_t bytes);
  NodeId make_integer(Node::Type type, std::int64_t value);
  NodeId make_double(double value);
  NodeId make_text(Node::Type type, std::string_view text);
  NodeId make_inert(std::string_view global, std::span<const NodeId> contents);
  [[nodiscard]] Node& operator[](NodeId id) { return nodes_[id]; }
  [[nodiscard]] const Node& operator[](NodeId id) const { return nodes_[id]; }
  [[nodiscard]] std::size_t count() const { return nodes_.size(); }
  [[nodiscard]] const PickleLimits& limits() const { return limits_; }

  template <typename... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    throw DataError("{}: {}", context_, fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  PickleLimits limits_;
  std::string context_;
  std::vector<Node> nodes_;
  std::size_t values_ = 0;
  std::uint64_t text_bytes_ = 0;
};

/// Interprets a call of `callable` with `arguments` (a tuple): returns the data it stands for if the callable
/// is on the allow-list, else an inert node. Nothing is executed.
[[nodiscard]] NodeId call(Nodes& nodes, NodeId callable, NodeId arguments);

/// Storage that a persistent id refers to.
[[nodiscard]] NodeId resolve_persistent_id(Nodes& nodes, NodeId id, const StorageResolver& resolve);

/// Sets state on a node, like BUILD; returns the node that replaces `target`.
[[nodiscard]] NodeId build(Nodes& nodes, NodeId target, NodeId state);

/// Converts the nodes to a tree, in which an inert node replaces a reference of a value to itself. Throws
/// when depth or expansion exceed the limits, and for duplicate keys.
[[nodiscard]] Value to_value(const Nodes& nodes, NodeId root);

}  // namespace voca::engine::pickle
