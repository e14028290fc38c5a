#include "engine/checkpoint/torch/value.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "engine/base/error.h"
#include "engine/base/json.h"
#include "engine/base/text.h"

namespace voca::engine {
namespace {

const Value* find_entry(std::span<const std::pair<Value, Value>> entries, std::string_view key) {
  for (const auto& [name, value] : entries) {
    const std::string* text = name.if_string();
    if (text != nullptr && *text == key) return &value;
  }
  return nullptr;
}

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
  return fmt::format("{} {} ({}){}", tensor.parameter ? "parameter" : "tensor", name_of(tensor.dtype),
                     fmt::join(tensor.shape, ", "), tensor.contiguous() ? "" : ", strided");
}

/// "list of 3"
std::string container_text(const Value& value) {
  const std::size_t size = value.if_dict() != nullptr ? value.entries().size() : value.items().size();
  return fmt::format("{} of {}", name_of(value.kind()), size);
}

std::string inert_text(const InertNode& node) {
  return fmt::format("<{}, not loaded>", printable(node.global));
}

/// A key or a name, printable on one line.
std::string printable_key(const Value& key) {
  const std::string* text = key.if_string();
  return text != nullptr ? printable(*text) : key_text(key);
}

/// Builds the output of describe().
class Description {
 public:
  Description(std::size_t max_items, std::size_t max_lines) : max_items_(max_items), max_lines_(max_lines) {}

  /// Appends what follows "key: " and everything below it.
  void add(const Value& value, std::size_t indent) {
    switch (value.kind()) {
      case Value::Kind::kString:
        return end_line(printable(*value.if_string()));
      case Value::Kind::kBytes:
        return end_line(fmt::format("{} bytes", value.if_bytes()->data.size()));
      case Value::Kind::kTensor:
        return end_line(describe_tensor(*value.if_tensor()));
      case Value::Kind::kList:
      case Value::Kind::kTuple:
        end_line(container_text(value));
        return add_items(value.items(), indent + 2);
      case Value::Kind::kDict:
        end_line(container_text(value));
        return add_entries(value.entries(), indent + 2);
      case Value::Kind::kInert:
        end_line(inert_text(*value.if_inert()));
        add_items(value.if_inert()->contents, indent + 2);
        return add_entries(value.entries(), indent + 2);
      default:
        end_line(key_text(value));
    }
  }

  void add_entries(std::span<const std::pair<Value, Value>> entries, std::size_t indent) {
    add_all(entries.size(), indent, [&](std::size_t i) -> const Value& {
      out_ += printable_key(entries[i].first);
      return entries[i].second;
    });
  }

  std::string take() {
    if (cut_) out_ += fmt::format("… cut after {} lines\n", max_lines_);
    return std::move(out_);
  }

 private:
  /// Whether no further line may be added; must be called before adding one.
  bool full() {
    cut_ = cut_ || lines_ >= max_lines_;
    return cut_;
  }

  void end_line(const std::string& text) {
    out_ += text;
    out_ += '\n';
    ++lines_;
  }
  void add_items(std::span<const Value> items, std::size_t indent) {
    add_all(items.size(), indent, [&](std::size_t i) -> const Value& {
      out_ += std::to_string(i);
      return items[i];
    });
  }
  /// Adds `count` values; take(i) appends the name of one and returns it.
  template <typename Take>
  void add_all(std::size_t count, std::size_t indent, const Take& take) {
    for (std::size_t i = 0; i < std::min(count, max_items_); ++i) {
      if (full()) return;
      out_.append(indent, ' ');
      const Value& value = take(i);
      out_ += ": ";
      add(value, indent);
    }
    if (count > max_items_ && !full())
      end_line(fmt::format("{:{}}… {} more", "", indent, count - max_items_));
  }

  std::string out_;
  std::size_t max_items_;
  std::size_t max_lines_;
  std::size_t lines_ = 0;
  bool cut_ = false;
};

/// Calls found(place, node) for every inert node that is not inside another one.
template <typename Found>
void visit_inert(const Value& value, const ValuePlace& place, const Found& found) {
  if (const InertNode* node = value.if_inert()) return found(place, *node);
  if (const Dict* dict = value.if_dict()) {
    static const Value a_key("key");
    for (const auto& [key, child] : dict->attributes)
      visit_inert(child, {.above = &place, .key = &key}, found);
    for (const auto& [key, child] : dict->items) {
      visit_inert(child, {.above = &place, .key = &key}, found);
      visit_inert(key, {.above = &place, .key = &a_key}, found);
    }
  }
  const auto items = value.items();
  for (std::size_t i = 0; i < items.size(); ++i) visit_inert(items[i], {.above = &place, .index = i}, found);
}

/// Builds the JSON of one tree, within a total budget of values.
class JsonMaker {
 public:
  nlohmann::ordered_json make(const Value& value) {
    if (const auto* truth = value.if_bool()) return *truth;
    if (const auto* number = value.if_int()) return *number;
    if (const auto* number = value.if_unsigned()) return *number;
    if (const auto* number = value.if_double()) return *number;
    if (value.is_none()) return nullptr;
    if (const auto* text = value.if_string()) {
      if (fits(text->size() / kTextPerValue)) return *text;
      return fmt::format("str of {} bytes", text->size());
    }
    if (const TensorValue* tensor = value.if_tensor()) return of_tensor(*tensor);
    if (value.if_list() != nullptr || value.if_tuple() != nullptr) return of_items(value);
    // omegaconf's DictConfig, which Hydra and Lightning save, keeps its content under these keys.
    for (const char* inner : {"_val", "_content"}) {
      if (const Value* content = value.find(inner); content != nullptr && value.if_inert() != nullptr)
        return make(*content);
    }
    if (value.if_dict() != nullptr || !value.entries().empty()) return of_entries(value);
    if (const InertNode* node = value.if_inert()) return inert_text(*node);
    return fmt::format("{} bytes", value.if_bytes()->data.size());
  }

 private:
  static constexpr std::size_t kTextPerValue = 32;  // bytes of text that count as one value

  /// Reserves this many values and returns true if they fit.
  bool fits(std::size_t values) {
    if (values > left_) return false;
    left_ -= values;
    return true;
  }

  static nlohmann::ordered_json of_tensor(const TensorValue& tensor) {
    if (tensor.elements() != 1) return describe_tensor(tensor);
    double element = 0;
    tensor.copy_to(std::span(&element, 1));
    if (is_floating(tensor.dtype)) return element;
    return static_cast<std::int64_t>(element);
  }

  nlohmann::ordered_json of_items(const Value& value) {
    if (!fits(value.items().size())) return container_text(value);
    auto array = nlohmann::ordered_json::array();
    for (const Value& item : value.items()) array.push_back(make(item));
    return array;
  }

  nlohmann::ordered_json of_entries(const Value& value) {
    std::size_t cost = 0;
    for (const auto& [key, item] : value.entries())
      cost += 1 + (key.if_string() != nullptr ? key.if_string()->size() / kTextPerValue : 0);
    if (!fits(cost))
      return value.if_inert() != nullptr ? inert_text(*value.if_inert()) : container_text(value);
    auto object = nlohmann::ordered_json::object();
    object.get_ref<nlohmann::ordered_json::object_t&>().reserve(value.entries().size());
    std::unordered_set<std::string> keys;
    for (const auto& [key, item] : value.entries()) {
      std::string name = key_text(key);
      if (keys.insert(name).second) add_member(object, std::move(name), make(item));
    }
    return object;
  }

  std::size_t left_ = 100'000;
};

}  // namespace

Value::Value(std::uint64_t value) {
  if (std::in_range<std::int64_t>(value)) {
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
  // In the order of Kind.
  constexpr auto kNames =
      std::to_array<std::string_view>({"None", "bool", "int", "int", "float", "str", "bytes", "list", "tuple",
                                       "dict", "tensor", "object that is not loaded"});
  return kNames.at(static_cast<std::size_t>(kind));
}

std::string describe(const Value& value, std::size_t max_items, std::size_t max_lines) {
  Description description(max_items, max_lines);
  if (value.if_dict() != nullptr) {
    description.add_entries(value.entries(), 0);
  } else {
    description.add(value, 0);
  }
  return description.take();
}

std::string path_of(const ValuePlace& place, std::size_t max_bytes) {
  std::vector<const ValuePlace*> places;
  for (const ValuePlace* at = &place; at->above != nullptr; at = at->above) places.push_back(at);
  std::string path;
  for (auto at = places.rbegin(); at != places.rend() && path.size() < max_bytes; ++at) {
    if (!path.empty()) path += '.';
    const Value* key = (*at)->key;
    const std::string* text = key == nullptr ? nullptr : key->if_string();
    if (text != nullptr) {
      path += std::string_view(*text).substr(0, max_bytes);
    } else {
      path += key == nullptr ? std::to_string((*at)->index) : key_text(*key);
    }
  }
  if (path.size() > max_bytes) path.resize(max_bytes);
  return path;
}

std::vector<std::string> list_inert(const Value& value, std::size_t max_places) {
  constexpr std::size_t kMaxPath = 200;
  std::vector<std::string> found;
  visit_inert(value, {}, [&](const ValuePlace& place, const InertNode& node) {
    if (found.size() >= max_places) return;
    const std::string path = path_of(place, kMaxPath + 1);
    found.push_back(fmt::format("{}: {}", path.empty() ? "the whole file" : printable(path, kMaxPath),
                                printable(node.global)));
  });
  return found;
}

std::size_t count_inert(const Value& value) {
  std::size_t count = 0;
  visit_inert(value, {}, [&](const ValuePlace& /*place*/, const InertNode& /*node*/) { ++count; });
  return count;
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
  return JsonMaker().make(value);
}

}  // namespace voca::engine
