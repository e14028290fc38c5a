#pragma once

// Contents of a checkpoint's pickle as plain data: a small immutable tree whose subtrees may be shared.
// Nothing in it can be executed; an object unknown to the reader becomes an InertNode, which can only be
// printed.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "engine/base/file_reader.h"
#include "engine/core/dtype.h"

namespace voca::engine {

/// Bytes viewed by one or more tensors: a record of a file, read on demand, or memory.
class Storage {
 public:
  /// Overwrites `out` with the bytes starting at `offset`. Throws IoError when a file cannot be read,
  /// DataError when it has become shorter.
  using Read = std::function<void(std::uint64_t offset, std::span<std::byte> out)>;

  /// `size` bytes that `read` reads.
  Storage(std::uint64_t size, Read read, bool big_endian = false)
      : size_(size), read_(std::move(read)), big_endian_(big_endian) {}

  /// Size in bytes.
  [[nodiscard]] std::uint64_t size() const { return size_; }
  /// Calls `read`; [offset, offset + out.size()) must lie within size().
  void read(std::uint64_t offset, std::span<std::byte> out) const {
    VOCA_CHECK(offset <= size_ && out.size() <= size_ - offset);
    read_(offset, out);
  }
  /// Whether elements are stored big-endian.
  [[nodiscard]] bool big_endian() const { return big_endian_; }

 private:
  std::uint64_t size_;
  Read read_;
  bool big_endian_;
};

/// Storage::read with elements of `element_size` bytes converted to little-endian. `offset` and `out` must
/// cover whole elements.
void read_little_endian(const Storage& storage, std::size_t element_size, std::uint64_t offset,
                        std::span<std::byte> out);

/// A storage over memory that the caller keeps alive and unchanged.
[[nodiscard]] std::shared_ptr<const Storage> borrow_storage(std::span<const std::byte> bytes);

/// A storage over `size` bytes of a file from `offset` on, which are read on demand.
[[nodiscard]] std::shared_ptr<const Storage> storage_in(std::shared_ptr<const FileReader> file,
                                                        std::uint64_t offset, std::uint64_t size);

/// A view of a storage as an n-dimensional array. Readers only create views that lie within their storage and
/// have no more elements than it.
struct TensorValue {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;    ///< outermost extent first; empty for a scalar
  std::vector<std::int64_t> strides;  ///< in elements; one per extent of the shape
  std::int64_t offset = 0;            ///< index of the first element in the storage
  std::shared_ptr<const Storage> storage;
  bool parameter = false;  ///< a torch.nn.Parameter instead of a plain tensor

  [[nodiscard]] std::int64_t elements() const;
  /// Whether the elements lie in row-major order without gaps.
  [[nodiscard]] bool contiguous() const;
  /// Overwrites `out` (elements()) with the elements in row-major order, converted: exact from bfloat16,
  /// float16 and float32; float64 is rounded to nearest; integers are cast.
  void copy_to(std::span<float> out) const;
  /// Overload for double; exact from every floating-point type.
  void copy_to(std::span<double> out) const;
  /// The elements in row-major order in their own type, little-endian.
  [[nodiscard]] std::vector<std::byte> bytes() const;
  /// Passes the same bytes to `visit`, in order and in pieces: a contiguous tensor needs no memory of its
  /// size.
  void visit_bytes(const std::function<void(std::span<const std::byte>)>& visit) const;
};

/// A contiguous tensor over the first elements of `storage`, which must hold as many as `shape`.
[[nodiscard]] TensorValue contiguous_tensor(DType dtype, std::vector<std::int64_t> shape,
                                            std::shared_ptr<const Storage> storage);
/// A contiguous float32 tensor over memory that must outlive it. `elements` must have as many elements as
/// `shape`.
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
/// A dict or an OrderedDict, with entries in insertion order.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  bool ordered_dict = false;  ///< collections.OrderedDict instead of dict
  /// Python attributes of the object (torch stores version numbers there, `_metadata`); the writer omits
  /// them.
  std::vector<std::pair<Value, Value>> attributes;

  /// Value of a string key, or nullptr.
  [[nodiscard]] const Value* find(std::string_view key) const;
  /// Appends an entry; the key must be new.
  void add(std::string key, Value value);
};
/// An object that the reader refuses to build: its global name and its would-be contents.
struct InertNode {
  std::string global;           ///< "os.system"
  std::vector<Value> contents;  ///< arguments, then anything that was added to it
  /// Entries that would have been set on it by key: the attributes of an argparse.Namespace, the items of a
  /// defaultdict. If a string key occurs twice, the first is kept.
  std::vector<std::pair<Value, Value>> entries;
};

/// A node of the tree. Copies share the subtrees.
class Value {
  // Alternatives in the order of Kind.
  using Data =
      std::variant<std::monostate, bool, std::int64_t, std::uint64_t, double,
                   std::shared_ptr<const std::string>, std::shared_ptr<const Bytes>,
                   std::shared_ptr<const List>, std::shared_ptr<const Tuple>, std::shared_ptr<const Dict>,
                   std::shared_ptr<const TensorValue>, std::shared_ptr<const InertNode>>;

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
  /// A string, Bytes, List, Tuple, Dict, TensorValue or InertNode.
  template <typename T>
  requires std::is_constructible_v<Data, std::shared_ptr<const T>> Value(
      T content)  // NOLINT(google-explicit-constructor)
      : data_(std::make_shared<const T>(std::move(content))) {}

  [[nodiscard]] Kind kind() const { return static_cast<Kind>(data_.index()); }
  [[nodiscard]] bool is_none() const { return kind() == Kind::kNone; }

  // Content if the node is of that kind, else nullptr.
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

  /// Items of a list or a tuple; empty for other kinds.
  [[nodiscard]] std::span<const Value> items() const;
  /// Entries of a dict, or the entries of an inert node; empty for other kinds.
  [[nodiscard]] std::span<const std::pair<Value, Value>> entries() const;
  /// Value of a string key in entries(), or nullptr.
  [[nodiscard]] const Value* find(std::string_view key) const;

 private:
  template <typename T>
  [[nodiscard]] const T* shared() const {
    const auto* pointer = std::get_if<std::shared_ptr<const T>>(&data_);
    return pointer == nullptr ? nullptr : pointer->get();
  }

  Data data_;
};

/// Name of the kind for messages: "dict", "tensor", …
[[nodiscard]] std::string_view name_of(Value::Kind kind);

/// One indented line per entry, as `inspect` prints it: `lr: 0.0003`, `weight: tensor float32 (3, 4)`, `hook:
/// <os.system, not loaded>`. Long lists are cut after `max_items`, the output after `max_lines`: because
/// values may be shared, a small file can describe more than can be printed.
[[nodiscard]] std::string describe(const Value& value, std::size_t max_items = 64,
                                   std::size_t max_lines = 2000);

/// Position of a value in a tree. A traversal keeps one per level and joins them only when a path is printed,
/// so that a long key is not copied for every value below it.
struct ValuePlace {
  const ValuePlace* above = nullptr;  ///< parent; null at the root
  const Value* key = nullptr;         ///< key of a dict's entry; null for an item
  std::size_t index = 0;              ///< index of an item
};
/// Path such as "args.hooks.0", truncated to `max_bytes`; empty for the root.
[[nodiscard]] std::string path_of(const ValuePlace& place, std::size_t max_bytes);

/// Paths of the first `max_places` inert nodes, as "args.hook: os.system". Nodes inside another inert node
/// are not listed.
[[nodiscard]] std::vector<std::string> list_inert(const Value& value, std::size_t max_places = 100);
/// Number of such nodes.
[[nodiscard]] std::size_t count_inert(const Value& value);

/// Converts objects to dicts and arrays to lists.
[[nodiscard]] Value value_from_json(const nlohmann::ordered_json& json);
/// Dicts, and inert nodes with entries, become objects (with string keys), lists and tuples become arrays,
/// one-element tensors become numbers. Values that JSON cannot represent become the text of describe(), as
/// does everything beyond a total of 100 000 values, shared ones counted each time.
[[nodiscard]] nlohmann::ordered_json json_from_value(const Value& value);

}  // namespace voca::engine
