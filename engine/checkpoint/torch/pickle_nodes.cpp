#include "engine/checkpoint/torch/pickle_nodes.h"
#include "engine/base/text.h"

#include <algorithm>
#include <array>
#include <unordered_set>

namespace voca::engine::pickle {

void Nodes::charge_values(std::size_t count) {
  values_ += count;
  if (values_ > limits_.max_values)
    fail("more than {} values; no state dict has so many", limits_.max_values);
}

void Nodes::charge_text(std::uint64_t bytes) {
  text_bytes_ += bytes;
  if (text_bytes_ > limits_.max_bytes) fail("more than {} bytes of text", limits_.max_bytes);
}

NodeId Nodes::make(Node::Type type, std::size_t cost) {
  charge_values(cost);
  nodes_.emplace_back().type = type;
  return static_cast<NodeId>(nodes_.size() - 1);
}

NodeId Nodes::make_integer(Node::Type type, std::int64_t value) {
  const NodeId id = make(type);
  nodes_[id].integer = value;
  return id;
}

NodeId Nodes::make_double(double value) {
  const NodeId id = make(Node::Type::kDouble);
  nodes_[id].real = value;
  return id;
}

NodeId Nodes::make_text(Node::Type type, std::string_view text) {
  charge_text(text.size());
  // The text may belong to another node, and make() can move the nodes.
  std::string copy(text);
  const NodeId id = make(type);
  nodes_[id].text = std::move(copy);
  return id;
}

NodeId Nodes::make_inert(std::string_view global, std::span<const NodeId> contents) {
  const NodeId id = make_text(Node::Type::kInert, global);
  nodes_[id].children.assign(contents.begin(), contents.end());
  return id;
}

namespace {

constexpr std::size_t kTextPerValue = 32;  // bytes of text that count as one value in the expanded tree

class Converter {
 public:
  explicit Converter(const Nodes& nodes) : nodes_(nodes), done_(nodes.count()) {}

  Value convert(NodeId root) { return visit(root, 1).value; }

 private:
  struct Done {
    Value value;
    std::size_t expanded = 0;  // values in this subtree, shared ones counted each time; 0: not converted yet
    int height = 0;
    bool on_path = false;
  };

  const Done& visit(NodeId id, int depth) {
    Done& done = done_[id];
    if (done.on_path) return itself_;
    if (done.expanded == 0) {
      check_depth(depth);
      done.on_path = true;
      done.expanded = 1 + nodes_[id].text.size() / kTextPerValue;
      done.height = 1;
      const Value value = make(id, depth, done);
      done.value = value;
      done.on_path = false;
    }
    check_depth(depth - 1 + done.height);
    return done;
  }

  void check_depth(int depth) const {
    if (depth > nodes_.limits().max_depth)
      nodes_.fail("values nested deeper than {}", nodes_.limits().max_depth);
  }

  Value child(NodeId id, int depth, Done& parent) {
    const Done& below = visit(id, depth + 1);
    parent.expanded += below.expanded;
    parent.height = std::max(parent.height, below.height + 1);
    if (parent.expanded > nodes_.limits().max_expanded)
      nodes_.fail("expands to more than {} values", nodes_.limits().max_expanded);
    return below.value;
  }

  std::vector<Value> children(NodeId id, int depth, Done& parent) {
    std::vector<Value> items;
    items.reserve(nodes_[id].children.size());
    for (const NodeId item : nodes_[id].children) items.push_back(child(item, depth, parent));
    return items;
  }

  std::vector<std::pair<Value, Value>> entries(NodeId id, int depth, Done& parent) {
    const std::vector<NodeId>& flat = nodes_[id].children;
    std::vector<std::pair<Value, Value>> items;
    items.reserve(flat.size() / 2);
    std::unordered_set<std::string> texts;
    std::unordered_set<std::int64_t> numbers;
    for (std::size_t i = 0; i + 1 < flat.size(); i += 2) {
      items.emplace_back(child(flat[i], depth, parent), child(flat[i + 1], depth, parent));
      const Value& key = items.back().first;
      const bool fresh = key.if_string() != nullptr ? texts.insert(*key.if_string()).second
                         : key.if_int() != nullptr  ? numbers.insert(*key.if_int()).second
                                                    : true;
      if (!fresh) nodes_.fail("a dict has the key {} twice", printable(nodes_[flat[i]].text));
    }
    return items;
  }

  InertNode inert(NodeId id, int depth, Done& done) {
    InertNode made{nodes_[id].text, children(id, depth, done), {}};
    std::unordered_set<std::string> texts;
    for (const std::optional<NodeId> part : {nodes_[id].entries, nodes_[id].attributes}) {
      if (!part) continue;
      const Value dict = child(*part, depth, done);
      for (const auto& entry : dict.entries()) {
        const std::string* text = entry.first.if_string();
        if (text == nullptr || texts.insert(*text).second) made.entries.push_back(entry);
      }
    }
    return made;
  }

  Value make(NodeId id, int depth, Done& done) {
    const Node& node = nodes_[id];
    switch (node.type) {
      case Node::Type::kNone:
        return {};
      case Node::Type::kBool:
        return node.integer != 0;
      case Node::Type::kInt:
        return node.integer;
      case Node::Type::kUnsigned:
        return static_cast<std::uint64_t>(node.integer);
      case Node::Type::kDouble:
        return node.real;
      case Node::Type::kString:
        return node.text;
      case Node::Type::kBytes:
        return Bytes{node.text};
      case Node::Type::kList:
        return List{children(id, depth, done)};
      case Node::Type::kTuple:
        return Tuple{children(id, depth, done)};
      case Node::Type::kDict: {
        Dict dict;
        dict.ordered_dict = node.ordered_dict;
        dict.items = entries(id, depth, done);
        if (node.attributes) {
          const Value attributes = child(*node.attributes, depth, done);
          // Copied entry by entry, because the placeholder for a cyclic value has no entries.
          dict.attributes.assign(attributes.entries().begin(), attributes.entries().end());
        }
        return dict;
      }
      case Node::Type::kTensor:
        return *static_cast<const TensorValue*>(node.object.get());
      case Node::Type::kGlobal:
        // A dtype is data; any other global stands for code.
        if (is_dtype_name(node.text)) return node.text;
        return InertNode{node.text, {}, {}};
      case Node::Type::kStorage:
        return InertNode{"a storage without a tensor", {}, {}};
      case Node::Type::kNumpyDType:
        return InertNode{"numpy.dtype", {Value(node.text)}, {}};
      case Node::Type::kInert:
        return inert(id, depth, done);
    }
    return {};
  }

  static bool is_dtype_name(const std::string& name);

  const Nodes& nodes_;
  std::vector<Done> done_;
  // Placeholder for a cycle. Pickled objects may refer to their owners; state dicts do not.
  const Done itself_{InertNode{"a value that contains itself", {}, {}}, 1, 1, false};
};

bool Converter::is_dtype_name(const std::string& name) {
  static constexpr std::array<std::string_view, 17> kNames = {
      "torch.float64", "torch.float32", "torch.float16", "torch.bfloat16",  "torch.float",     "torch.double",
      "torch.half",    "torch.int64",   "torch.int32",   "torch.int16",     "torch.int8",      "torch.uint8",
      "torch.bool",    "torch.long",    "torch.int",     "torch.complex64", "torch.complex128"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

}  // namespace

Value to_value(const Nodes& nodes, NodeId root) {
  return Converter(nodes).convert(root);
}

}  // namespace voca::engine::pickle
