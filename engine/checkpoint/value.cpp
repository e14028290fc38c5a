#include "engine/checkpoint/value.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "engine/error.h"

namespace voca::engine {

Value::Value(std::string text) : data_(std::make_shared<const std::string>(std::move(text))) {}
Value::Value(Bytes bytes) : data_(std::make_shared<const Bytes>(std::move(bytes))) {}
Value::Value(List list) : data_(std::make_shared<const List>(std::move(list))) {}
Value::Value(Tuple tuple) : data_(std::make_shared<const Tuple>(std::move(tuple))) {}
Value::Value(Dict dict) : data_(std::make_shared<const Dict>(std::move(dict))) {}
Value::Value(TensorValue tensor) : data_(std::make_shared<const TensorValue>(std::move(tensor))) {}
Value::Value(InertNode node) : data_(std::make_shared<const InertNode>(std::move(node))) {}

Value::Value(std::uint64_t value) {
  if (value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    data_ = static_cast<std::int64_t>(value);
  } else {
    data_ = value;
  }
}

std::span<const Value> Value::items() const {
  if (const List* list = if_list()) return list->items;
  if (const Tuple* tuple = if_tuple()) return tuple->items;
  return {};
}

std::span<const std::pair<Value, Value>> Value::entries() const {
  if (const Dict* dict = if_dict()) return dict->items;
  if (const InertNode* node = if_inert()) return node->entries;
  return {};
}

namespace {

const Value* find_entry(std::span<const std::pair<Value, Value>> entries, std::string_view key) {
  for (const auto& [name, value] : entries) {
    const std::string* text = name.if_string();
    if (text != nullptr && *text == key) return &value;
  }
  return nullptr;
}

}  // namespace

const Value* Value::find(std::string_view key) const {
  return find_entry(entries(), key);
}

const Value* Dict::find(std::string_view key) const {
  return find_entry(items, key);
}

void Dict::add(std::string key, Value value) {
  items.emplace_back(Value(std::move(key)), std::move(value));
}

std::string_view name_of(Value::Kind kind) {
  switch (kind) {
    case Value::Kind::kNone:
      return "None";
    case Value::Kind::kBool:
      return "bool";
    case Value::Kind::kInt:
    case Value::Kind::kUnsigned:
      return "int";
    case Value::Kind::kDouble:
      return "float";
    case Value::Kind::kString:
      return "str";
    case Value::Kind::kBytes:
      return "bytes";
    case Value::Kind::kList:
      return "list";
    case Value::Kind::kTuple:
      return "tuple";
    case Value::Kind::kDict:
      return "dict";
    case Value::Kind::kTensor:
      return "tensor";
    case Value::Kind::kInert:
      return "object that is not loaded";
  }
  return "unknown";
}

std::string printable(std::string_view text, std::size_t max_bytes) {
  std::string result;
  for (const char c : text.substr(0, max_bytes)) {
    const auto code = static_cast<unsigned char>(c);
    if (code < 0x20 || code == 0x7F) {
      result += fmt::format("\\x{:02x}", code);
    } else {
      result += c;
    }
  }
  if (text.size() > max_bytes) result += "…";
  return result;
}

namespace {

std::string key_text(const Value& key) {
  if (const auto* text = key.if_string()) return *text;
  if (const auto* number = key.if_int()) return fmt::format("{}", *number);
  if (const auto* number = key.if_unsigned()) return fmt::format("{}", *number);
  if (const auto* truth = key.if_bool()) return *truth ? "True" : "False";
  if (const auto* number = key.if_double()) return fmt::format("{}", *number);
  if (key.is_none()) return "None";
  return fmt::format("<{}>", name_of(key.kind()));
}

std::string describe_tensor(const TensorValue& tensor) {
  std::string shape;
  for (const std::int64_t extent : tensor.shape)
    shape += (shape.empty() ? "" : ", ") + std::to_string(extent);
  return fmt::format("{} {} ({}){}", tensor.parameter ? "parameter" : "tensor", name_of(tensor.dtype), shape,
                     tensor.contiguous() ? "" : ", strided");
}

std::string inert_text(const InertNode& node) {
  return fmt::format("<{}, not loaded>", printable(node.global));
}

void describe_into(std::string& out, const Value& value, std::size_t indent, std::size_t max_items);

void describe_items(std::string& out, std::span<const Value> items, std::size_t indent,
                    std::size_t max_items) {
  for (std::size_t i = 0; i < std::min(items.size(), max_items); ++i) {
    out += fmt::format("{:{}}{}: ", "", indent, i);
    describe_into(out, items[i], indent, max_items);
  }
  if (items.size() > max_items) out += fmt::format("{:{}}… {} more\n", "", indent, items.size() - max_items);
}

void describe_entries(std::string& out, std::span<const std::pair<Value, Value>> entries, std::size_t indent,
                      std::size_t max_items) {
  for (std::size_t i = 0; i < std::min(entries.size(), max_items); ++i) {
    out += fmt::format("{:{}}{}: ", "", indent, printable(key_text(entries[i].first)));
    describe_into(out, entries[i].second, indent, max_items);
  }
  if (entries.size() > max_items)
    out += fmt::format("{:{}}… {} more\n", "", indent, entries.size() - max_items);
}

/// Writes what follows "key: " and everything below it.
void describe_into(std::string& out, const Value& value, std::size_t indent, std::size_t max_items) {
  switch (value.kind()) {
    case Value::Kind::kString:
      out += printable(*value.if_string()) + "\n";
      return;
    case Value::Kind::kBytes:
      out += fmt::format("{} bytes\n", value.if_bytes()->data.size());
      return;
    case Value::Kind::kTensor:
      out += describe_tensor(*value.if_tensor()) + "\n";
      return;
    case Value::Kind::kList:
    case Value::Kind::kTuple:
      out += fmt::format("{} of {}\n", name_of(value.kind()), value.items().size());
      describe_items(out, value.items(), indent + 2, max_items);
      return;
    case Value::Kind::kDict:
      out += fmt::format("dict of {}\n", value.if_dict()->items.size());
      describe_entries(out, value.entries(), indent + 2, max_items);
      return;
    case Value::Kind::kInert:
      out += inert_text(*value.if_inert()) + "\n";
      describe_items(out, value.if_inert()->contents, indent + 2, max_items);
      describe_entries(out, value.entries(), indent + 2, max_items);
      return;
    default:
      out += key_text(value) + "\n";
  }
}

void list_inert_below(const Value& value, const std::string& path, std::vector<std::string>& found) {
  if (const InertNode* node = value.if_inert()) {
    found.push_back(
        fmt::format("{}: {}", path.empty() ? "the whole file" : printable(path), printable(node->global)));
    return;
  }
  const auto below = [&](const std::string& key, const Value& child) {
    list_inert_below(child, path.empty() ? key : path + "." + key, found);
  };
  if (const Dict* dict = value.if_dict()) {
    for (const auto& [key, child] : dict->attributes) below(key_text(key), child);
    for (const auto& [key, child] : dict->items) {
      below(key_text(key), child);
      below("key", key);
    }
  }
  const auto items = value.items();
  for (std::size_t i = 0; i < items.size(); ++i) below(std::to_string(i), items[i]);
}

}  // namespace

std::string describe(const Value& value, std::size_t max_items) {
  std::string out;
  if (value.if_dict() != nullptr) {
    describe_entries(out, value.entries(), 0, max_items);
  } else {
    describe_into(out, value, 0, max_items);
  }
  return out;
}

std::vector<std::string> list_inert(const Value& value) {
  std::vector<std::string> found;
  list_inert_below(value, "", found);
  return found;
}

Value value_from_json(const nlohmann::ordered_json& json) {
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::boolean:
      return json.get<bool>();
    case nlohmann::ordered_json::value_t::number_unsigned:
      return json.get<std::uint64_t>();
    case nlohmann::ordered_json::value_t::number_integer:
      return json.get<std::int64_t>();
    case nlohmann::ordered_json::value_t::number_float:
      return json.get<double>();
    case nlohmann::ordered_json::value_t::string:
      return json.get<std::string>();
    case nlohmann::ordered_json::value_t::array: {
      List list;
      for (const auto& item : json) list.items.push_back(value_from_json(item));
      return list;
    }
    case nlohmann::ordered_json::value_t::object: {
      Dict dict;
      for (const auto& [key, item] : json.items()) dict.add(key, value_from_json(item));
      return dict;
    }
    default:
      return {};
  }
}

nlohmann::ordered_json json_from_value(const Value& value) {
  if (const auto* truth = value.if_bool()) return *truth;
  if (const auto* number = value.if_int()) return *number;
  if (const auto* number = value.if_unsigned()) return *number;
  if (const auto* number = value.if_double()) return *number;
  if (const auto* text = value.if_string()) return *text;
  if (value.is_none()) return nullptr;
  if (const TensorValue* tensor = value.if_tensor()) {
    if (tensor->elements() != 1) return describe_tensor(*tensor);
    double element = 0;
    tensor->copy_to(std::span(&element, 1));
    if (is_floating(tensor->dtype)) return element;
    return static_cast<std::int64_t>(element);
  }
  if (value.if_list() != nullptr || value.if_tuple() != nullptr) {
    auto array = nlohmann::ordered_json::array();
    for (const Value& item : value.items()) array.push_back(json_from_value(item));
    return array;
  }
  // omegaconf's DictConfig, which Hydra and Lightning save, keeps what it stands for under these.
  for (const char* inner : {"_val", "_content"}) {
    if (const Value* content = value.find(inner); content != nullptr && value.if_inert() != nullptr)
      return json_from_value(*content);
  }
  if (value.if_dict() != nullptr || !value.entries().empty()) {
    // ordered_json looks keys up one by one; built as a vector it stays linear in a large dict.
    nlohmann::ordered_json::object_t object;
    object.reserve(value.entries().size());
    std::unordered_set<std::string> keys;
    for (const auto& [key, item] : value.entries()) {
      if (keys.insert(key_text(key)).second) {
        static_cast<std::vector<nlohmann::ordered_json::object_t::value_type>&>(object).emplace_back(
            key_text(key), json_from_value(item));
      }
    }
    return object;
  }
  if (const InertNode* node = value.if_inert()) return inert_text(*node);
  return fmt::format("{} bytes", value.if_bytes()->data.size());
}

}  // namespace voca::engine
