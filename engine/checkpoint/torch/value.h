#pragma once

// What a checkpoint's pickle may hold, as plain data: a small immutable tree whose subtrees may be shared.
// Nothing in it can be executed; what the reader does not know is an InertNode that can only be printed.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "engine/core/dtype.h"

namespace voca::engine {

/// The bytes one or more tensors look into: a record of a file, read when asked for, or memory.
class Storage {
 public:
  Storage() = default;
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  virtual ~Storage() = default;

  /// Size in bytes.
  [[nodiscard]] virtual std::uint64_t size() const = 0;
  /// Overwrites `out` with the bytes from `offset` on; [offset, offset + out.size()) lies within size().
  /// Throws IoError when the file cannot be read, DataError when it is shorter than it was.
  virtual void read(std::uint64_t offset, std::span<std::byte> out) const = 0;
  /// Whether elements are stored with the most significant byte first.
  [[nodiscard]] virtual bool big_endian() const { return false; }
};

/// Reads like Storage::read, elements of `element_size` bytes turned to least significant byte first.
/// `offset` and `out` are whole elements.
void read_little_endian(const Storage& storage, std::size_t element_size, std::uint64_t offset,
                        std::span<std::byte> out);

/// A storage over memory that someone else keeps alive and unchanged.
[[nodiscard]] std::shared_ptr<const Storage> borrow_storage(std::span<const std::byte> bytes);

/// A view of a storage as an n-dimensional array. Readers only make views that lie within their storage and
/// have no more elements than it.
struct TensorValue {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;    ///< outermost extent first; empty for a scalar
  std::vector<std::int64_t> strides;  ///< elements; as many as the shape has extents
  std::int64_t offset = 0;            ///< elements, of the first element
  std::shared_ptr<const Storage> storage;
  bool parameter = false;  ///< a torch.nn.Parameter rather than a plain tensor

  [[nodiscard]] std::int64_t elements() const;
  /// Whether its elements lie in row-major order without gaps.
  [[nodiscard]] bool contiguous() const;
  /// Overwrites `out` (elements()) with the elements in row-major order, converted: exact from bfloat16,
  /// float16 and float32; float64 is rounded to nearest; integers as a cast does.
  void copy_to(std::span<float> out) const;
  /// Likewise; exact from every floating-point type.
  void copy_to(std::span<double> out) const;
  /// The elements in row-major order in their own type, least significant byte first.
  [[nodiscard]] std::vector<std::byte> bytes() const;
};

/// A contiguous float32 tensor over memory that outlives it. `elements` has as many as `shape`.
[[nodiscard]] TensorValue borrow_tensor(std::span<const float> elements, std::vector<std::int64_t> shape);

class Value;

struct Bytes {
  std::string data;
};
struct List {
  std::vector<Value> items;
};
struct Tuple {
  std::vector<Value> items;
};
/// A dict or an OrderedDict: entries in order of insertion.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  bool ordered_dict = false;  ///< collections.OrderedDict rather than dict
  /// What the pickle set on the object itself (torch puts version numbers there, `_metadata`); the writer
  /// leaves it out.
  std::vector<std::pair<Value, Value>> attributes;

  /// The entry of a string key; nullptr when there is none.
  [[nodiscard]] const Value* find(std::string_view key) const;
  /// Appends an entry; the caller sees to it that the key is new.
  void add(std::string key, Value value);
};
/// Something the reader refuses to build: the name its pickle gave and what it would have been made of.
struct InertNode {
  std::string global;           ///< "os.system"
  std::vector<Value> contents;  ///< arguments, then whatever was put into it
  /// What would have been set on it under a key: the attributes of an argparse.Namespace, the items of a
  /// defaultdict. Of a text that occurs twice the first stays.
  std::vector<std::pair<Value, Value>> entries;
};

/// One node of the tree. Copying one shares what lies below.
class Value {
 public:
  enum class Kind : std::uint8_t {
    kNone,
    kBool,
    kInt,
    kUnsigned,  ///< an int beyond int64
    kDouble,
    kString,
    kBytes,
    kList,
    kTuple,
    kDict,
    kTensor,
    kInert
  };

  Value() = default;                                // None
  Value(bool value) : data_(value) {}               // NOLINT(google-explicit-constructor): literals of a tree
  Value(int value) : data_(std::int64_t{value}) {}  // NOLINT(google-explicit-constructor)
  Value(std::int64_t value) : data_(value) {}       // NOLINT(google-explicit-constructor)
  Value(std::uint64_t value);                       // NOLINT(google-explicit-constructor): kInt where it fits
  Value(double value) : data_(value) {}             // NOLINT(google-explicit-constructor)
  Value(const char* text) : Value(std::string(text)) {}  // NOLINT(google-explicit-constructor)
  Value(std::string text);                               // NOLINT(google-explicit-constructor)
  Value(Bytes bytes);                                    // NOLINT(google-explicit-constructor)
  Value(List list);                                      // NOLINT(google-explicit-constructor)
  Value(Tuple tuple);                                    // NOLINT(google-explicit-constructor)
  Value(Dict dict);                                      // NOLINT(google-explicit-constructor)
  Value(TensorValue tensor);                             // NOLINT(google-explicit-constructor)
  Value(InertNode node);                                 // NOLINT(google-explicit-constructor)

  [[nodiscard]] Kind kind() const { return static_cast<Kind>(data_.index()); }
  [[nodiscard]] bool is_none() const { return kind() == Kind::kNone; }

  // The content where the node is of that kind, else nullptr.
  [[nodiscard]] const bool* if_bool() const { return std::get_if<bool>(&data_); }
  [[nodiscard]] const std::int64_t* if_int() const { return std::get_if<std::int64_t>(&data_); }
  [[nodiscard]] const std::uint64_t* if_unsigned() const { return std::get_if<std::uint64_t>(&data_); }
  [[nodiscard]] const double* if_double() const { return std::get_if<double>(&data_); }
  [[nodiscard]] const std::string* if_string() const { return shared<std::string>(); }
  [[nodiscard]] const Bytes* if_bytes() const { return shared<Bytes>(); }
  [[nodiscard]] const List* if_list() const { return shared<List>(); }
  [[nodiscard]] const Tuple* if_tuple() const { return shared<Tuple>(); }
  [[nodiscard]] const Dict* if_dict() const { return shared<Dict>(); }
  [[nodiscard]] const TensorValue* if_tensor() const { return shared<TensorValue>(); }
  [[nodiscard]] const InertNode* if_inert() const { return shared<InertNode>(); }

  /// The items of a list or a tuple; empty for anything else.
  [[nodiscard]] std::span<const Value> items() const;
  /// The entries of a dict, or those that would have been set on an inert node; empty for anything else.
  [[nodiscard]] std::span<const std::pair<Value, Value>> entries() const;
  /// Among entries(), the value of a string key; nullptr when there is none.
  [[nodiscard]] const Value* find(std::string_view key) const;

 private:
  template <typename T>
  [[nodiscard]] const T* shared() const {
    const auto* pointer = std::get_if<std::shared_ptr<const T>>(&data_);
    return pointer == nullptr ? nullptr : pointer->get();
  }

  // In the order of Kind.
  std::variant<std::monostate, bool, std::int64_t, std::uint64_t, double, std::shared_ptr<const std::string>,
               std::shared_ptr<const Bytes>, std::shared_ptr<const List>, std::shared_ptr<const Tuple>,
               std::shared_ptr<const Dict>, std::shared_ptr<const TensorValue>,
               std::shared_ptr<const InertNode>>
      data_;
};

/// "dict", "tensor", …, as messages name it.
[[nodiscard]] std::string_view name_of(Value::Kind kind);

/// One indented line an entry, as `inspect` prints it: `lr: 0.0003`, `weight: tensor float32 (3, 4)`,
/// `hook: <os.system, not loaded>`. Long lists are cut after `max_items`, the whole after `max_lines`: values
/// may be shared, so that a few bytes stand for more than can be printed.
[[nodiscard]] std::string describe(const Value& value, std::size_t max_items = 64,
                                   std::size_t max_lines = 2000);

/// A value's place in a tree. A walk keeps one a level, and joins them only where a path is told: a long key
/// is not copied for every value below it.
struct ValuePlace {
  const ValuePlace* above = nullptr;  ///< null: the tree itself
  const Value* key = nullptr;         ///< of a dict's entry; null: an item
  std::size_t index = 0;              ///< of an item
};
/// "args.hooks.0", its first `max_bytes`; empty for the tree itself.
[[nodiscard]] std::string path_of(const ValuePlace& place, std::size_t max_bytes);

/// Where inert nodes lie, as "args.hook: os.system", the first `max_places`; what lies within one is not
/// listed.
[[nodiscard]] std::vector<std::string> list_inert(const Value& value, std::size_t max_places = 100);
/// How many places there are.
[[nodiscard]] std::size_t count_inert(const Value& value);

/// Objects become dicts, arrays lists.
[[nodiscard]] Value value_from_json(const nlohmann::ordered_json& json);
/// Dicts and inert nodes with entries become objects (keys as text), lists and tuples arrays, one-element
/// tensors numbers. What JSON has no form for becomes the text that describe() has for it, and so does what
/// no longer fits into 100 000 values, shared ones counted each time.
[[nodiscard]] nlohmann::ordered_json json_from_value(const Value& value);

}  // namespace voca::engine
