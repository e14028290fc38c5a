#include "engine/base/json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "engine/base/error.h"
#include "engine/base/text.h"

namespace voca::engine {
namespace {

using Json = nlohmann::ordered_json;
using Members = std::vector<Json::object_t::value_type>;  // base class of an object

/// Builds the value from the parser's SAX events, which the library emits without recursion. An object or
/// array is built when it ends, so that nothing is looked up or copied meanwhile.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  Builder(std::string_view where, const JsonLimits& limits) : where_(where), limits_(limits) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return add(value); }
  bool string(string_t& value) override {
    refuse_nul(value);
    return add(std::move(value));
  }
  bool binary(binary_t& /*value*/) override { return false; }  // JSON has none
  bool key(string_t& name) override {
    refuse_nul(name);
    open_.back().keys.push_back(std::move(name));
    if (open_.back().keys.size() > limits_.keys)
      throw DataError("{}: an object of more than {} keys", where_, limits_.keys);
    return true;
  }
  bool start_object(std::size_t /*size*/) override { return open(); }
  bool start_array(std::size_t /*size*/) override { return open(); }
  bool end_object() override {
    Open ended = close();
    check_keys(ended.keys);
    Json::object_t object;
    object.reserve(ended.keys.size());
    for (std::size_t i = 0; i < ended.keys.size(); ++i)
      static_cast<Members&>(object).emplace_back(std::move(ended.keys[i]), std::move(ended.values[i]));
    return add(std::move(object));
  }
  bool end_array() override { return add(close().values); }
  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const Json::exception& /*why*/) override {
    error_at_ = position;
    return false;
  }

  Json take() { return std::move(root_); }
  /// Bytes read before the parse error.
  [[nodiscard]] std::size_t error_at() const { return error_at_; }

 private:
  /// A consumer of C strings, file names for example, would truncate the text at a NUL.
  void refuse_nul(const std::string& text) const {
    if (text.find('\0') != std::string::npos) throw DataError("{}: a text with a NUL in it", where_);
  }
  struct Open {
    std::vector<std::string> keys;  // if an object
    std::vector<Json> values;
  };

  bool open() {
    if (open_.size() >= limits_.depth) {
      throw DataError("{}: nested deeper than {} levels; what this program writes is not", where_,
                      limits_.depth);
    }
    open_.emplace_back();
    return true;
  }
  Open close() {
    Open ended = std::move(open_.back());
    open_.pop_back();
    return ended;
  }
  bool add(Json value) {
    if (++values_ > limits_.values) throw DataError("{}: more than {} values", where_, limits_.values);
    if (open_.empty()) {
      root_ = std::move(value);
      return true;
    }
    Open& parent = open_.back();
    parent.values.push_back(std::move(value));
    if (parent.values.size() > limits_.items && parent.keys.empty())
      throw DataError("{}: an array of more than {} items", where_, limits_.items);
    return true;
  }
  /// Rejects duplicate keys: readers differ in which of the two values they take.
  void check_keys(const std::vector<std::string>& keys) const {
    std::vector<std::string_view> sorted(keys.begin(), keys.end());
    std::sort(sorted.begin(), sorted.end());
    if (const auto twice = std::adjacent_find(sorted.begin(), sorted.end()); twice != sorted.end())
      throw DataError("{}: has the key \"{}\" twice", where_, printable(*twice));
  }

  std::string_view where_;
  const JsonLimits& limits_;
  std::vector<Open> open_;
  Json root_;
  std::size_t values_ = 0;
  std::size_t error_at_ = 0;
};

/// Returns the value, or the number of bytes before the first that is not JSON.
std::pair<std::optional<Json>, std::size_t> parse(std::string_view text, std::string_view where,
                                                  const JsonLimits& limits) {
  // The library treats a NUL as the end and ignores what follows.
  if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos) return {std::nullopt, nul + 1};
  Builder builder(where, limits);
  if (!Json::sax_parse(text, &builder)) return {std::nullopt, builder.error_at()};
  return {builder.take(), 0};
}

}  // namespace

Json parse_json(std::string_view text, std::string_view where, const JsonLimits& limits) {
  auto [json, error_at] = parse(text, where, limits);
  if (json) return std::move(*json);
  if (text.empty()) throw DataError("{}: is empty, JSON was expected", where);
  const std::string_view before = text.substr(0, std::min(error_at, text.size()));
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const std::size_t column = before.size() - (before.rfind('\n') + 1);  // npos + 1 is 0
  if (line == 1) throw DataError("{}: is not JSON, at column {}", where, column);
  throw DataError("{}: is not JSON, at line {}, column {}", where, line, column);
}

std::optional<Json> parse_if_json(std::string_view text, std::string_view where, const JsonLimits& limits) {
  return parse(text, where, limits).first;
}

void add_member(Json& object, std::string key, Json value) {
  if (object.is_null()) object = Json::object();
  VOCA_CHECK(object.is_object());
  static_cast<Members&>(object.get_ref<Json::object_t&>()).emplace_back(std::move(key), std::move(value));
}

std::string json_text(const Json& json, int indent) {
  return json.dump(indent, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

}  // namespace voca::engine
