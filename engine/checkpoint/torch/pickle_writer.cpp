#include "engine/checkpoint/torch/pickle_writer.h"

#include <bit>
#include <limits>
#include <map>

#include "engine/base/error.h"
#include "engine/base/little_endian.h"
#include "engine/checkpoint/torch/pickle_opcodes.h"
#include "engine/checkpoint/torch/storage_types.h"

namespace voca::engine {
namespace {

class Writer {
 public:
  Pickle write(const Value& value) {
    put(Opcode::kProto);
    append_number(result_.bytes, std::uint8_t{2});
    visit(value);
    put(Opcode::kStop);
    return std::move(result_);
  }

 private:
  void put(Opcode opcode) { result_.bytes += static_cast<char>(opcode); }

  void put_int(std::int64_t value) {
    if (value >= 0 && value <= 0xFF) {
      put(Opcode::kBinInt1);
      append_number(result_.bytes, static_cast<std::uint8_t>(value));
    } else if (value >= 0 && value <= 0xFFFF) {
      put(Opcode::kBinInt2);
      append_number(result_.bytes, static_cast<std::uint16_t>(value));
    } else if (value >= std::numeric_limits<std::int32_t>::min() &&
               value <= std::numeric_limits<std::int32_t>::max()) {
      put(Opcode::kBinInt);
      append_number(result_.bytes, static_cast<std::int32_t>(value));
    } else {
      put(Opcode::kLong1);
      append_number(result_.bytes, std::uint8_t{sizeof(value)});
      append_number(result_.bytes, value);
    }
  }

  /// For values beyond int64: a ninth byte keeps the number positive.
  void put_unsigned(std::uint64_t value) {
    put(Opcode::kLong1);
    append_number(result_.bytes, std::uint8_t{sizeof(value) + 1});
    append_number(result_.bytes, value);
    append_number(result_.bytes, std::uint8_t{0});
  }

  void put_double(double value) {
    put(Opcode::kBinFloat);
    append_number(result_.bytes, __builtin_bswap64(std::bit_cast<std::uint64_t>(value)));
  }

  void put_string(std::string_view text) {
    put(Opcode::kBinUnicode);
    append_number(result_.bytes, static_cast<std::uint32_t>(text.size()));
    result_.bytes += text;
  }

  void put_global(std::string_view module, std::string_view name) {
    put(Opcode::kGlobal);
    result_.bytes += fmt::format("{}\n{}\n", module, name);
  }

  void put_extents(const std::vector<std::int64_t>& extents) {
    put(Opcode::kMark);
    for (const std::int64_t extent : extents) put_int(extent);
    put(Opcode::kTuple);
  }

  void put_empty_ordered_dict() {
    put_global("collections", "OrderedDict");
    put(Opcode::kEmptyTuple);
    put(Opcode::kReduce);
  }

  std::size_t number_of(const TensorValue& tensor) {
    const auto [place, fresh] = numbers_.try_emplace(tensor.storage.get(), result_.storages.size());
    if (fresh) result_.storages.push_back({tensor.storage, tensor.dtype});
    if (result_.storages[place->second].dtype != tensor.dtype) {
      throw InternalError("a storage seen as {} and as {}", name_of(result_.storages[place->second].dtype),
                          name_of(tensor.dtype));
    }
    return place->second;
  }

  void put_tensor(const TensorValue& tensor) {
    const std::size_t number = number_of(tensor);
    if (tensor.parameter) {
      put_global("torch._utils", "_rebuild_parameter");
      put(Opcode::kMark);
    }
    put_global("torch._utils", "_rebuild_tensor_v2");
    put(Opcode::kMark);
    put(Opcode::kMark);
    put_string("storage");
    put_global("torch", name_in<DType>(kStorageTypes, tensor.dtype));
    put_string(fmt::format("{}", number));
    put_string("cpu");
    put_int(static_cast<std::int64_t>(tensor.storage->size() / size_of(tensor.dtype)));
    put(Opcode::kTuple);
    put(Opcode::kBinPersId);
    put_int(tensor.offset);
    put_extents(tensor.shape);
    put_extents(tensor.strides);
    put(Opcode::kNewFalse);  // requires_grad
    put_empty_ordered_dict();
    put(Opcode::kTuple);
    put(Opcode::kReduce);
    if (tensor.parameter) {
      put(Opcode::kNewTrue);
      put_empty_ordered_dict();
      put(Opcode::kTuple);
      put(Opcode::kReduce);
    }
  }

  void put_list(const List& list) {
    put(Opcode::kEmptyList);
    if (list.items.empty()) return;
    put(Opcode::kMark);
    for (const Value& item : list.items) visit(item);
    put(Opcode::kAppends);
  }

  void put_dict(const Dict& dict) {
    if (dict.ordered_dict) {
      put_empty_ordered_dict();
    } else {
      put(Opcode::kEmptyDict);
    }
    if (dict.items.empty()) return;
    put(Opcode::kMark);
    for (const auto& [key, item] : dict.items) {
      visit(key);
      visit(item);
    }
    put(Opcode::kSetItems);
  }

  void visit(const Value& value) {
    switch (value.kind()) {
      case Value::Kind::kNone:
        return put(Opcode::kNone);
      case Value::Kind::kBool:
        return put(*value.if_bool() ? Opcode::kNewTrue : Opcode::kNewFalse);
      case Value::Kind::kInt:
        return put_int(*value.if_int());
      case Value::Kind::kUnsigned:
        return put_unsigned(*value.if_unsigned());
      case Value::Kind::kDouble:
        return put_double(*value.if_double());
      case Value::Kind::kString:
        return put_string(*value.if_string());
      case Value::Kind::kList:
        return put_list(*value.if_list());
      case Value::Kind::kTuple:
        put(Opcode::kMark);
        for (const Value& item : value.items()) visit(item);
        return put(Opcode::kTuple);
      case Value::Kind::kDict:
        return put_dict(*value.if_dict());
      case Value::Kind::kTensor:
        return put_tensor(*value.if_tensor());
      case Value::Kind::kBytes:
      case Value::Kind::kInert:
        throw InternalError("a {} cannot be written to a .pt", name_of(value.kind()));
    }
  }

  Pickle result_;
  std::map<const Storage*, std::size_t> numbers_;
};

}  // namespace

Pickle write_pickle(const Value& value) {
  return Writer().write(value);
}

}  // namespace voca::engine
