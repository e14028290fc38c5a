#pragma once

// Inside of the pickle reader: what its opcodes build. Nodes refer to each other by index and die together,
// so no input makes a destructor recurse or leaks a cycle.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
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
    kUnsigned,    // integer: its bits; beyond int64
    kDouble,      // real
    kString,      // text
    kBytes,       // text
    kList,        // children
    kTuple,       // children
    kDict,        // children: key, value, key, value, …; attributes
    kTensor,      // tensor
    kGlobal,      // text: module.name
    kStorage,     // storage, text: key, integer: DType or kUntyped
    kNumpyDType,  // text: "f8", integer: 1 when big-endian
    kInert,       // text: module.name, children; attributes; entries
  };
  Type type = Type::kNone;
  bool ordered_dict = false;
  std::int64_t integer = 0;
  double real = 0;
  std::string text;
  std::vector<NodeId> children;
  std::optional<NodeId> attributes;  // a dict that BUILD set on a dict or an inert node
  std::optional<NodeId> entries;     // a dict of what was set on an inert node under keys
  std::shared_ptr<const void> object;
};

inline constexpr std::int64_t kUntyped = -1;

/// All nodes of one pickle, within its limits.
class Nodes {
 public:
  Nodes(const PickleLimits& limits, std::string context) : limits_(limits), context_(std::move(context)) {}

  /// A new node. `cost` is in values of PickleLimits.
  NodeId make(Node::Type type, std::size_t cost = 1);
  /// Counts work that no new node shows: items or bytes of text copied. Input that refers to one large value
  /// again and again is stopped by it.
  void charge_values(std::size_t count);
  void charge_text(std::uint64_t bytes);
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

/// What calling `callable` with `arguments` (a tuple) gives: the data it stands for where it is on the
/// allow-list, else an inert node. Nothing is called.
[[nodiscard]] NodeId call(Nodes& nodes, NodeId callable, NodeId arguments);

/// The storage a persistent id names.
[[nodiscard]] NodeId resolve_persistent_id(Nodes& nodes, NodeId id, const StorageResolver& resolve);

/// Sets state on a node, as BUILD does; returns what stands in its place.
[[nodiscard]] NodeId build(Nodes& nodes, NodeId target, NodeId state);

/// The finished tree; where a value contains itself an inert node stands for it. Throws for depth and
/// expansion beyond the limits, and for a key twice.
[[nodiscard]] Value to_value(const Nodes& nodes, NodeId root);

}  // namespace voca::engine::pickle
