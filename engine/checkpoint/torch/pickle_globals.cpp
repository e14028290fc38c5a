// Allow-list: the few globals of a state dict that are interpreted as data. Any other name is never imported
// and becomes an inert node.

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "engine/base/text.h"
#include "engine/checkpoint/torch/pickle_nodes.h"
#include "engine/checkpoint/torch/storage_types.h"
#include "kernels/cpu/half.h"

namespace voca::engine::pickle {
namespace {

constexpr std::size_t kMaxRank = 16;
constexpr std::string_view kTorch = "torch.";
constexpr std::size_t kTensorCost = 8;  // in values; a tensor holds two vectors of up to kMaxRank

/// Types of storages that torch.save names; an untyped one holds bytes.
std::optional<std::int64_t> storage_type(std::string_view name) {
  if (name == "torch.UntypedStorage" || name == "torch.storage.UntypedStorage" ||
      name == "torch.storage._UntypedStorage")
    return kUntyped;
  if (!name.starts_with(kTorch)) return std::nullopt;
  const auto dtype = value_named<DType>(kStorageTypes, name.substr(kTorch.size()));
  return dtype ? std::optional(static_cast<std::int64_t>(*dtype)) : std::nullopt;
}

/// Element type of a global such as torch.float32.
std::optional<DType> dtype_named(std::string_view name) {
  return name.starts_with(kTorch) ? value_named<DType>(name.substr(kTorch.size())) : std::nullopt;
}

bool is(const Nodes& nodes, NodeId id, Node::Type type) {
  return nodes[id].type == type;
}

/// Whether a tensor argument that this reader does not interpret (hooks, metadata) is absent. If present, it
/// changes the tensor's meaning.
bool is_absent(const Nodes& nodes, NodeId id) {
  const Node& node = nodes[id];
  return node.type == Node::Type::kNone || (node.type == Node::Type::kDict && node.children.empty());
}

std::vector<std::int64_t> extents_of(const Nodes& nodes, NodeId id, std::string_view what) {
  const Node& node = nodes[id];
  if (node.type != Node::Type::kTuple && node.type != Node::Type::kList)
    nodes.fail("a tensor whose {} is not a tuple", what);
  if (node.children.size() > kMaxRank)
    nodes.fail("a tensor of {} dimensions; at most {} are read", node.children.size(), kMaxRank);
  std::vector<std::int64_t> extents;
  for (const NodeId child : node.children) {
    if (!is(nodes, child, Node::Type::kInt) || nodes[child].integer < 0)
      nodes.fail("a tensor whose {} holds something else than numbers from 0 on", what);
    extents.push_back(nodes[child].integer);
  }
  return extents;
}

/// Throws unless every element lies within a storage of `capacity` elements. Returns false if the tensor has
/// more elements than that: an expanded tensor of a few bytes can have any size.
bool check_extents(const Nodes& nodes, const TensorValue& tensor, std::uint64_t capacity,
                   const std::string& key) {
  const auto limit = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) / 16;
  const auto refuse = [&](std::string_view why) {
    nodes.fail("a tensor of {} dimensions {} storage {} of {} elements", tensor.shape.size(), why,
               printable(key), capacity);
  };
  bool empty = false;
  std::uint64_t product = 1;  // product of the non-zero extents: no partial product overflows either
  for (const std::int64_t extent : tensor.shape) {
    empty = empty || extent == 0;
    if (extent != 0 && __builtin_mul_overflow(product, static_cast<std::uint64_t>(extent), &product))
      product = limit;
    if (product >= limit) refuse("has more elements than any");
  }
  if (empty) {
    if (static_cast<std::uint64_t>(tensor.offset) > capacity) refuse("begins beyond");
    return true;
  }
  auto last = static_cast<std::uint64_t>(tensor.offset);
  for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
    std::uint64_t reach = 0;
    if (__builtin_mul_overflow(static_cast<std::uint64_t>(tensor.shape[i] - 1),
                               static_cast<std::uint64_t>(tensor.strides[i]), &reach) ||
        __builtin_add_overflow(last, reach, &last))
      refuse("reaches beyond");
  }
  if (last >= capacity) refuse("reaches beyond");
  return product <= capacity;
}

NodeId make_tensor(Nodes& nodes, TensorValue tensor) {
  const NodeId id = nodes.make(Node::Type::kTensor, kTensorCost);
  nodes[id].object = std::make_shared<const TensorValue>(std::move(tensor));
  return id;
}

/// torch._utils._rebuild_tensor*(storage, offset, size, stride[, requires_grad, hooks[, dtype], metadata]);
/// empty if an argument is not supported.
std::optional<NodeId> rebuild_tensor(Nodes& nodes, std::span<const NodeId> args, bool has_dtype) {
  if (args.size() < 4) nodes.fail("a tensor with {} arguments", args.size());
  if (!is(nodes, args[0], Node::Type::kStorage)) return std::nullopt;
  for (std::size_t i = 5; i < args.size(); ++i)
    if (!(has_dtype && i == 6) && !is_absent(nodes, args[i])) return std::nullopt;
  std::int64_t dtype = nodes[args[0]].integer;
  if (has_dtype) {
    if (args.size() < 7 || !is(nodes, args[6], Node::Type::kGlobal)) return std::nullopt;
    const std::optional<DType> named = dtype_named(nodes[args[6]].text);
    if (!named) return std::nullopt;
    dtype = static_cast<std::int64_t>(*named);
  }
  if (dtype == kUntyped)
    nodes.fail("a tensor of storage {} that has no element type", printable(nodes[args[0]].text));
  if (!is(nodes, args[1], Node::Type::kInt) || nodes[args[1]].integer < 0)
    nodes.fail("a tensor whose offset is not a number from 0 on");

  TensorValue tensor;
  tensor.dtype = static_cast<DType>(dtype);
  tensor.offset = nodes[args[1]].integer;
  tensor.shape = extents_of(nodes, args[2], "size");
  tensor.strides = extents_of(nodes, args[3], "stride");
  if (tensor.shape.size() != tensor.strides.size())
    nodes.fail("a tensor with {} extents and {} strides", tensor.shape.size(), tensor.strides.size());
  tensor.storage = std::static_pointer_cast<const Storage>(nodes[args[0]].object);
  if (!check_extents(nodes, tensor, tensor.storage->size() / size_of(tensor.dtype), nodes[args[0]].text))
    return nodes.make_inert("an expanded tensor (call .contiguous() before saving)", {});
  return make_tensor(nodes, std::move(tensor));
}

/// torch._utils._rebuild_parameter(data, requires_grad, hooks[, state])
std::optional<NodeId> rebuild_parameter(Nodes& nodes, std::span<const NodeId> args) {
  if (args.size() < 3 || !is(nodes, args[0], Node::Type::kTensor) || !is_absent(nodes, args[2]))
    return std::nullopt;
  TensorValue tensor = *static_cast<const TensorValue*>(nodes[args[0]].object.get());
  tensor.parameter = true;
  return make_tensor(nodes, std::move(tensor));
}

/// torch._utils._rebuild_device_tensor_from_cpu_tensor(tensor, dtype, device, requires_grad), used for
/// devices that have no storages.
std::optional<NodeId> rebuild_device_tensor(const Nodes& nodes, std::span<const NodeId> args) {
  if (args.size() != 4 || !is(nodes, args[0], Node::Type::kTensor) ||
      !is(nodes, args[1], Node::Type::kGlobal))
    return std::nullopt;
  const auto* tensor = static_cast<const TensorValue*>(nodes[args[0]].object.get());
  if (dtype_named(nodes[args[1]].text) != tensor->dtype) return std::nullopt;
  return args[0];
}

std::optional<NodeId> call_known(Nodes& nodes, std::string_view name, std::span<const NodeId> args);

/// torch._tensor._rebuild_from_type_v2(rebuild, type, arguments, attributes): a tensor with Python
/// attributes, such as a torch.nn.Buffer. The attributes do not affect its values. For other types they
/// might, so those are not interpreted.
std::optional<NodeId> rebuild_from_type(Nodes& nodes, std::span<const NodeId> args) {
  if (args.size() != 4 || !is(nodes, args[0], Node::Type::kGlobal) ||
      !is(nodes, args[1], Node::Type::kGlobal) || !is(nodes, args[2], Node::Type::kTuple))
    return std::nullopt;
  const std::string rebuild = nodes[args[0]].text;
  const std::string& type = nodes[args[1]].text;
  const bool plain =
      type == "torch.Tensor" || type == "torch.nn.parameter.Parameter" || type == "torch.nn.parameter.Buffer";
  if (!plain || !rebuild.starts_with("torch._utils._rebuild_")) return std::nullopt;
  nodes.charge_values(nodes[args[2]].children.size());
  const std::vector<NodeId> arguments = nodes[args[2]].children;
  return call_known(nodes, rebuild, arguments);
}

/// collections.OrderedDict() or OrderedDict([(key, value), …])
std::optional<NodeId> ordered_dict(Nodes& nodes, std::span<const NodeId> args) {
  std::vector<NodeId> flat;
  if (args.size() > 1) return std::nullopt;
  if (args.size() == 1) {
    if (!is(nodes, args[0], Node::Type::kList)) return std::nullopt;
    nodes.charge_values(2 * nodes[args[0]].children.size());
    for (const NodeId pair : nodes[args[0]].children) {
      const Node& node = nodes[pair];
      if ((node.type != Node::Type::kTuple && node.type != Node::Type::kList) || node.children.size() != 2)
        return std::nullopt;
      flat.insert(flat.end(), node.children.begin(), node.children.end());
    }
  }
  const NodeId id = nodes.make(Node::Type::kDict);
  nodes[id].children = std::move(flat);
  nodes[id].ordered_dict = true;
  return id;
}

/// _codecs.encode(text, 'latin1'), which represents bytes in protocol 2.
std::optional<NodeId> encode_latin1(Nodes& nodes, std::span<const NodeId> args) {
  if (args.size() != 2 || !is(nodes, args[0], Node::Type::kString) ||
      !is(nodes, args[1], Node::Type::kString) ||
      (nodes[args[1]].text != "latin1" && nodes[args[1]].text != "latin-1"))
    return std::nullopt;
  std::string bytes;
  const std::string& text = nodes[args[0]].text;
  nodes.charge_text(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto code = static_cast<unsigned char>(text[i]);
    if (code < 0x80) {
      bytes += text[i];
      continue;
    }
    if (code > 0xC3 || i + 1 == text.size()) return std::nullopt;  // beyond U+00FF
    bytes += static_cast<char>((code & 0x03U) << 6U | (static_cast<unsigned char>(text[++i]) & 0x3FU));
  }
  return nodes.make_text(Node::Type::kBytes, bytes);
}

/// numpy.dtype('f8', align, copy); a BUILD with the byte order follows.
std::optional<NodeId> numpy_dtype(Nodes& nodes, std::span<const NodeId> args) {
  if (args.empty() || !is(nodes, args[0], Node::Type::kString) || nodes[args[0]].text.size() > 8)
    return std::nullopt;
  const std::string code = nodes[args[0]].text;
  return nodes.make_text(Node::Type::kNumpyDType, code);
}

NodeId make_int(Nodes& nodes, std::int64_t value) {
  return nodes.make_integer(Node::Type::kInt, value);
}

NodeId make_unsigned(Nodes& nodes, std::uint64_t value) {
  return nodes.make_integer(std::in_range<std::int64_t>(value) ? Node::Type::kInt : Node::Type::kUnsigned,
                            static_cast<std::int64_t>(value));
}

/// numpy.core.multiarray.scalar(dtype, bytes), from a metric saved without float().
std::optional<NodeId> numpy_scalar(Nodes& nodes, std::span<const NodeId> args) {
  if (args.size() != 2 || !is(nodes, args[0], Node::Type::kNumpyDType) ||
      !is(nodes, args[1], Node::Type::kBytes) || nodes[args[1]].text.size() > sizeof(std::int64_t))
    return std::nullopt;
  const std::string code = nodes[args[0]].text;
  std::string bytes = nodes[args[1]].text;
  if (nodes[args[0]].integer != 0) std::reverse(bytes.begin(), bytes.end());
  const auto as = [&]<typename T>(T value) {
    if (bytes.size() != sizeof(T)) nodes.fail("a numpy scalar {} of {} bytes", code, bytes.size());
    std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  };
  if (code == "f8") return nodes.make_double(as(double{}));
  if (code == "f4") return nodes.make_double(as(float{}));
  if (code == "f2") return nodes.make_double(kernels::cpu::half_to_float(as(std::uint16_t{})));
  if (code == "i8") return make_int(nodes, as(std::int64_t{}));
  if (code == "i4") return make_int(nodes, as(std::int32_t{}));
  if (code == "i2") return make_int(nodes, as(std::int16_t{}));
  if (code == "i1") return make_int(nodes, as(std::int8_t{}));
  if (code == "u8") return make_unsigned(nodes, as(std::uint64_t{}));
  if (code == "u4") return make_int(nodes, as(std::uint32_t{}));
  if (code == "u2") return make_int(nodes, as(std::uint16_t{}));
  if (code == "u1") return make_int(nodes, as(std::uint8_t{}));
  if (code == "b1") return nodes.make_integer(Node::Type::kBool, as(std::uint8_t{}) != 0 ? 1 : 0);
  return std::nullopt;
}

/// torch.device('cuda', 0) as "cuda:0".
std::optional<NodeId> device(Nodes& nodes, std::span<const NodeId> args) {
  if (args.empty() || args.size() > 2 || !is(nodes, args[0], Node::Type::kString)) return std::nullopt;
  if (args.size() == 2 && !is(nodes, args[1], Node::Type::kInt)) return std::nullopt;
  nodes.charge_text(nodes[args[0]].text.size());
  std::string text = nodes[args[0]].text;
  if (args.size() == 2) text += fmt::format(":{}", nodes[args[1]].integer);
  return nodes.make_text(Node::Type::kString, text);
}

std::optional<NodeId> call_known(Nodes& nodes, std::string_view name, std::span<const NodeId> args) {
  if (name == "torch._utils._rebuild_tensor" || name == "torch._utils._rebuild_tensor_v2")
    return rebuild_tensor(nodes, args, false);
  if (name == "torch._utils._rebuild_tensor_v3") return rebuild_tensor(nodes, args, true);
  if (name == "torch._utils._rebuild_parameter" || name == "torch._utils._rebuild_parameter_with_state")
    return rebuild_parameter(nodes, args);
  if (name == "torch._utils._rebuild_device_tensor_from_cpu_tensor")
    return rebuild_device_tensor(nodes, args);
  if (name == "torch._tensor._rebuild_from_type_v2" || name == "torch._tensor._rebuild_from_type")
    return rebuild_from_type(nodes, args);
  if (name == "collections.OrderedDict") return ordered_dict(nodes, args);
  if (name == "torch.Size" && args.size() == 1 &&
      (is(nodes, args[0], Node::Type::kTuple) || is(nodes, args[0], Node::Type::kList)))
    return args[0];
  if (name == "torch.device") return device(nodes, args);
  if (name == "_codecs.encode") return encode_latin1(nodes, args);
  if (name == "numpy.dtype") return numpy_dtype(nodes, args);
  if (name == "numpy.core.multiarray.scalar" || name == "numpy._core.multiarray.scalar")
    return numpy_scalar(nodes, args);
  return std::nullopt;
}

}  // namespace

NodeId call(Nodes& nodes, NodeId callable, NodeId arguments) {
  if (!is(nodes, arguments, Node::Type::kTuple)) nodes.fail("a call whose arguments are not a tuple");
  nodes.charge_values(nodes[arguments].children.size());
  const std::vector<NodeId> args = nodes[arguments].children;
  if (!is(nodes, callable, Node::Type::kGlobal)) {
    const std::array<NodeId, 2> parts{callable, arguments};
    return nodes.make_inert("a call of something that is not a global", parts);
  }
  const std::string name = nodes[callable].text;
  if (const auto known = call_known(nodes, name, args)) return *known;
  return nodes.make_inert(name, args);
}

NodeId resolve_persistent_id(Nodes& nodes, NodeId id, const StorageResolver& resolve) {
  nodes.charge_values(nodes[id].children.size());
  const std::vector<NodeId> parts = nodes[id].children;
  if (!is(nodes, id, Node::Type::kTuple) || parts.size() < 5 || !is(nodes, parts[0], Node::Type::kString) ||
      nodes[parts[0]].text != "storage" || !is(nodes, parts[1], Node::Type::kGlobal) ||
      !is(nodes, parts[2], Node::Type::kString) || !is(nodes, parts[4], Node::Type::kInt) ||
      nodes[parts[4]].integer < 0)
    nodes.fail("a persistent id that names no storage");
  const std::string type_name = nodes[parts[1]].text;
  const std::optional<std::int64_t> type = storage_type(type_name);
  if (!type) return nodes.make_inert(type_name, {});
  StorageReference reference;
  reference.key = nodes[parts[2]].text;
  reference.elements = static_cast<std::uint64_t>(nodes[parts[4]].integer);
  reference.element_size = *type == kUntyped ? 1 : size_of(static_cast<DType>(*type));
  auto storage = resolve(reference);
  const NodeId made = nodes.make_text(Node::Type::kStorage, reference.key);
  nodes[made].integer = *type;
  nodes[made].object = std::move(storage);
  return made;
}

NodeId build(Nodes& nodes, NodeId target, NodeId state) {
  switch (nodes[target].type) {
    case Node::Type::kDict:
      if (is(nodes, state, Node::Type::kDict) && !nodes[target].attributes) {
        nodes[target].attributes = state;
        return target;
      }
      break;
    case Node::Type::kNumpyDType: {
      // (version, byte order, subdtype, names, fields, itemsize, alignment, flags)
      const std::vector<NodeId>& parts = nodes[state].children;  // valid: no node is created below
      if (is(nodes, state, Node::Type::kTuple) && parts.size() >= 2 &&
          is(nodes, parts[1], Node::Type::kString)) {
        nodes[target].integer = nodes[parts[1]].text == ">" ? 1 : 0;
        return target;
      }
      break;
    }
    case Node::Type::kInert:
      if (is(nodes, state, Node::Type::kDict) && !nodes[target].attributes) {
        nodes[target].attributes = state;
      } else {
        nodes[target].children.push_back(state);
      }
      return target;
    default:
      break;
  }
  const std::array<NodeId, 2> parts{target, state};
  return nodes.make_inert("state set on a value", parts);
}

}  // namespace voca::engine::pickle
