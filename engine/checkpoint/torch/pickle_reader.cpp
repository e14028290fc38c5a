#include "engine/checkpoint/torch/pickle_reader.h"

#include <array>
#include <bit>
#include <cstring>
#include <limits>

#include "engine/base/little_endian.h"
#include "engine/base/text.h"
#include "engine/checkpoint/torch/pickle_nodes.h"
#include "engine/checkpoint/torch/pickle_opcodes.h"

namespace voca::engine {
namespace {

using pickle::Node;
using pickle::NodeId;
using pickle::Nodes;

constexpr std::size_t kMaxGlobalName = 256;

/// Stack machine of the pickle format, with nodes instead of objects.
class Machine {
 public:
  Machine(std::span<const std::byte> input, const std::string& context, const StorageResolver& resolve,
          const PickleLimits& limits)
      : input_(input), nodes_(limits, context), resolve_(resolve) {}

  Value run() {
    if (input_.size() > nodes_.limits().max_bytes)
      nodes_.fail("the pickle has {} bytes; at most {} are read", input_.size(), nodes_.limits().max_bytes);
    if (take<std::uint8_t>() != static_cast<std::uint8_t>(Opcode::kProto))
      nodes_.fail("not a pickle of protocol 2 to 5");
    read_protocol();
    while (!stopped_) step(static_cast<Opcode>(take<std::uint8_t>()));
    if (at_ != input_.size()) nodes_.fail("{} bytes follow the end of the pickle", input_.size() - at_);
    if (!marks_.empty() || stack_.size() != 1) nodes_.fail("the pickle ends with values left over");
    return pickle::to_value(nodes_, stack_.back());
  }

 private:
  std::string_view take_bytes(std::uint64_t count) {
    if (count > input_.size() - at_) nodes_.fail("the pickle ends within a value, at byte {}", at_);
    const auto bytes = input_.subspan(at_, count);
    at_ += count;
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  template <typename T>
  T take() {
    return leading_number<T>(take_bytes(sizeof(T)));
  }
  std::string_view take_line() {
    const auto rest =
        std::string_view(reinterpret_cast<const char*>(input_.data()), input_.size()).substr(at_);
    const std::size_t length = rest.substr(0, kMaxGlobalName).find('\n');
    if (length == std::string_view::npos) nodes_.fail("a name without an end at byte {}", at_);
    at_ += length + 1;
    return rest.substr(0, length);
  }

  void push(NodeId id) {
    // Every push costs at least one byte of input; this limit bounds the total independently of the input
    // size.
    if (++pushes_ > nodes_.limits().max_expanded)
      nodes_.fail("more than {} values", nodes_.limits().max_expanded);
    stack_.push_back(id);
  }
  [[nodiscard]] std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  NodeId pop() {
    if (stack_.size() <= floor()) nodes_.fail("an operation at byte {} finds nothing to work on", at_);
    const NodeId id = stack_.back();
    stack_.pop_back();
    return id;
  }
  NodeId top() {
    const NodeId id = pop();
    stack_.push_back(id);
    return id;
  }
  /// Removes the last mark and returns the items pushed since.
  std::vector<NodeId> pop_mark() {
    if (marks_.empty()) nodes_.fail("an operation at byte {} finds no mark", at_);
    std::vector<NodeId> items(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return items;
  }

  void remember(std::uint64_t key) {
    if (key >= nodes_.limits().max_values)
      nodes_.fail("memo number {} is beyond {}", key, nodes_.limits().max_values);
    if (key >= memo_.size()) memo_.resize(key + 1, kNothing);
    memo_[key] = top();
    ++memoized_;
  }
  void recall(std::uint64_t key) {
    if (key >= memo_.size() || memo_[key] == kNothing) nodes_.fail("memo number {} was never set", key);
    push(memo_[key]);
  }

  void push_int(std::int64_t value) { push(nodes_.make_integer(Node::Type::kInt, value)); }
  void push_bool(bool value) { push(nodes_.make_integer(Node::Type::kBool, value ? 1 : 0)); }
  void push_double() {
    const auto bits = __builtin_bswap64(take<std::uint64_t>());  // pickles store doubles big-endian
    push(nodes_.make_double(std::bit_cast<double>(bits)));
  }
  void push_string(std::string_view text) {
    // Python keeps file names in other encodings in such strings.
    push(is_utf8(text) ? nodes_.make_text(Node::Type::kString, text)
                       : nodes_.make_inert("a text that is not UTF-8", {}));
  }
  /// Python 2's str: a string if it is UTF-8, else bytes.
  void push_old_string(std::string_view text) {
    push(nodes_.make_text(is_utf8(text) ? Node::Type::kString : Node::Type::kBytes, text));
  }
  void push_bytes(std::string_view bytes) { push(nodes_.make_text(Node::Type::kBytes, bytes)); }
  void push_long(std::uint64_t length) {
    const std::string_view bytes = take_bytes(length);
    if (length == sizeof(std::uint64_t) + 1 && bytes.back() == '\0') {
      return push(nodes_.make_integer(Node::Type::kUnsigned, leading_number<std::int64_t>(bytes)));
    }
    if (length > sizeof(std::int64_t))
      return push(nodes_.make_inert(fmt::format("int of {} bytes", length), {}));
    std::uint64_t value =
        length > 0 && (static_cast<unsigned char>(bytes.back()) & 0x80U) != 0 ? ~std::uint64_t{0} : 0;
    if (length > 0) std::memcpy(&value, bytes.data(), length);
    push_int(static_cast<std::int64_t>(value));
  }

  void push_children(Node::Type type, std::vector<NodeId> children) {
    const NodeId id = nodes_.make(type);
    nodes_[id].children = std::move(children);
    push(id);
  }
  void push_tuple_of(std::size_t count) {
    std::vector<NodeId> items(count);
    for (std::size_t i = count; i-- > 0;) items[i] = pop();
    push_children(Node::Type::kTuple, std::move(items));
  }
  void push_dict_of(std::vector<NodeId> items) {
    if (items.size() % 2 != 0) nodes_.fail("a dict with a key that has no value, at byte {}", at_);
    push_children(Node::Type::kDict, std::move(items));
  }

  void append(const std::vector<NodeId>& items) {
    Node& target = nodes_[top()];
    if (target.type != Node::Type::kList && target.type != Node::Type::kInert)
      nodes_.fail("items appended to something that is not a list, at byte {}", at_);
    target.children.insert(target.children.end(), items.begin(), items.end());
  }
  void set_items(const std::vector<NodeId>& items) {
    NodeId target = top();
    const Node::Type type = nodes_[target].type;
    if ((type != Node::Type::kDict && type != Node::Type::kInert) || items.size() % 2 != 0)
      nodes_.fail("keys set on something that is not a dict, at byte {}", at_);
    if (type == Node::Type::kInert) {
      if (!nodes_[target].entries) {
        const NodeId entries = nodes_.make(Node::Type::kDict);
        nodes_[target].entries = entries;
      }
      target = *nodes_[target].entries;
    }
    std::vector<NodeId>& flat = nodes_[target].children;
    flat.insert(flat.end(), items.begin(), items.end());
  }

  void push_global(std::string_view module, std::string_view name) {
    if (module.size() + name.size() >= kMaxGlobalName || !is_utf8(module) || !is_utf8(name))
      nodes_.fail("a global whose name is not a name, at byte {}", at_);
    push(nodes_.make_text(Node::Type::kGlobal, fmt::format("{}.{}", module, name)));
  }
  void push_stack_global() {
    const NodeId name = pop();
    const NodeId module = pop();
    if (nodes_[name].type != Node::Type::kString || nodes_[module].type != Node::Type::kString)
      nodes_.fail("a global whose name is not a string, at byte {}", at_);
    push_global(nodes_[module].text, nodes_[name].text);
  }
  void call_with(NodeId arguments) {
    const NodeId callable = pop();
    push(pickle::call(nodes_, callable, arguments));
  }
  void call_with_keywords() {
    const NodeId keywords = pop();
    const NodeId arguments = pop();
    const NodeId callable = pop();
    const std::array<NodeId, 3> parts{callable, arguments, keywords};
    push(nodes_.make_inert("a call with keywords", parts));
  }
  void push_object(std::vector<NodeId> items) { push(nodes_.make_inert("an object of protocol 0", items)); }

  void read_protocol() {
    const auto version = take<std::uint8_t>();
    if (version < 2 || version > 5) nodes_.fail("pickle protocol {}; 2 to 5 are read", version);
  }
  void read_frame() {
    const auto length = take<std::uint64_t>();
    if (length > input_.size() - at_) nodes_.fail("a frame of {} bytes reaches beyond the pickle", length);
  }

  void step(Opcode opcode) {
    switch (opcode) {
      case Opcode::kNone:
        return push(nodes_.make(Node::Type::kNone));
      case Opcode::kNewTrue:
        return push_bool(true);
      case Opcode::kNewFalse:
        return push_bool(false);
      case Opcode::kBinInt:
        return push_int(take<std::int32_t>());
      case Opcode::kBinInt1:
        return push_int(take<std::uint8_t>());
      case Opcode::kBinInt2:
        return push_int(take<std::uint16_t>());
      case Opcode::kLong1:
        return push_long(take<std::uint8_t>());
      case Opcode::kLong4:
        return push_long(take<std::uint32_t>());
      case Opcode::kBinFloat:
        return push_double();
      case Opcode::kShortBinUnicode:
        return push_string(take_bytes(take<std::uint8_t>()));
      case Opcode::kBinUnicode:
        return push_string(take_bytes(take<std::uint32_t>()));
      case Opcode::kBinUnicode8:
        return push_string(take_bytes(take<std::uint64_t>()));
      case Opcode::kShortBinString:
        return push_old_string(take_bytes(take<std::uint8_t>()));
      case Opcode::kBinString:
        return push_old_string(take_bytes(take<std::uint32_t>()));
      case Opcode::kShortBinBytes:
        return push_bytes(take_bytes(take<std::uint8_t>()));
      case Opcode::kBinBytes:
        return push_bytes(take_bytes(take<std::uint32_t>()));
      case Opcode::kBinBytes8:
      case Opcode::kByteArray8:
        return push_bytes(take_bytes(take<std::uint64_t>()));
      case Opcode::kEmptyTuple:
        return push_tuple_of(0);
      case Opcode::kTuple1:
        return push_tuple_of(1);
      case Opcode::kTuple2:
        return push_tuple_of(2);
      case Opcode::kTuple3:
        return push_tuple_of(3);
      case Opcode::kTuple:
        return push_children(Node::Type::kTuple, pop_mark());
      case Opcode::kEmptyList:
        return push_children(Node::Type::kList, {});
      case Opcode::kList:
        return push_children(Node::Type::kList, pop_mark());
      case Opcode::kEmptyDict:
        return push_children(Node::Type::kDict, {});
      case Opcode::kDict:
        return push_dict_of(pop_mark());
      case Opcode::kEmptySet:
        return push(nodes_.make_inert("builtins.set", {}));
      case Opcode::kFrozenSet:
        return push(nodes_.make_inert("builtins.frozenset", pop_mark()));
      case Opcode::kAppend: {
        const NodeId item = pop();
        return append({item});
      }
      case Opcode::kAppends:
      case Opcode::kAddItems:
        return append(pop_mark());
      case Opcode::kSetItem: {
        const NodeId value = pop();
        const NodeId key = pop();
        return set_items({key, value});
      }
      case Opcode::kSetItems:
        return set_items(pop_mark());
      case Opcode::kMark:
        if (marks_.size() >= nodes_.limits().max_values) nodes_.fail("more than {} marks", marks_.size());
        return marks_.push_back(stack_.size());
      case Opcode::kPop:
        if (stack_.size() == floor() && !marks_.empty()) {
          marks_.pop_back();
        } else {
          (void)pop();
        }
        return;
      case Opcode::kPopMark:
        (void)pop_mark();
        return;
      case Opcode::kDup:
        return push(top());
      case Opcode::kBinPut:
        return remember(take<std::uint8_t>());
      case Opcode::kLongBinPut:
        return remember(take<std::uint32_t>());
      case Opcode::kMemoize:
        return remember(memoized_);
      case Opcode::kBinGet:
        return recall(take<std::uint8_t>());
      case Opcode::kLongBinGet:
        return recall(take<std::uint32_t>());
      case Opcode::kFrame:
        return read_frame();
      case Opcode::kProto:
        return read_protocol();
      case Opcode::kStop:
        stopped_ = true;
        return;
      case Opcode::kGlobal: {
        const std::string_view module = take_line();
        return push_global(module, take_line());
      }
      case Opcode::kStackGlobal:
        return push_stack_global();
      case Opcode::kReduce:
      case Opcode::kNewObj:
        return call_with(pop());
      case Opcode::kNewObjEx:
        return call_with_keywords();
      case Opcode::kInst:
        (void)take_line();
        (void)take_line();
        return push_object(pop_mark());
      case Opcode::kObj:
        return push_object(pop_mark());
      case Opcode::kBuild: {
        const NodeId state = pop();
        const NodeId target = pop();
        return push(pickle::build(nodes_, target, state));
      }
      case Opcode::kBinPersId: {
        const NodeId id = pop();
        return push(pickle::resolve_persistent_id(nodes_, id, resolve_));
      }
      default:
        nodes_.fail("opcode 0x{:02x} at byte {}, which no torch.save writes", static_cast<unsigned>(opcode),
                    at_ - 1);
    }
  }

  static constexpr NodeId kNothing = std::numeric_limits<NodeId>::max();

  std::span<const std::byte> input_;
  std::size_t at_ = 0;
  Nodes nodes_;
  const StorageResolver& resolve_;
  std::vector<NodeId> stack_;
  std::vector<std::size_t> marks_;
  std::vector<NodeId> memo_;
  std::size_t memoized_ = 0;
  std::size_t pushes_ = 0;
  bool stopped_ = false;
};

}  // namespace

Value read_pickle(std::span<const std::byte> pickle, const std::string& context,
                  const StorageResolver& resolve, const PickleLimits& limits) {
  return Machine(pickle, context, resolve, limits).run();
}

}  // namespace voca::engine
