// Storages, and the tensors that view them.

#include <algorithm>
#include <cstring>

#include "engine/base/error.h"
#include "engine/checkpoint/torch/value.h"
#include "engine/core/element.h"

namespace voca::engine {
namespace {

constexpr std::uint64_t kPieceBytes = std::uint64_t{1} << 20;

void reverse_elements(std::span<std::byte> bytes, std::size_t element_size) {
  if (element_size == 1) return;
  for (std::size_t at = 0; at + element_size <= bytes.size(); at += element_size) {
    std::reverse(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                 bytes.begin() + static_cast<std::ptrdiff_t>(at + element_size));
  }
}

/// Calls visit(index of the first element, bytes) for consecutive pieces of the tensor in row-major order,
/// little-endian.
template <typename Visit>
void visit_pieces(const TensorValue& tensor, const Visit& visit) {
  const std::size_t element_size = size_of(tensor.dtype);
  const auto elements = static_cast<std::uint64_t>(tensor.elements());
  const auto first = static_cast<std::uint64_t>(tensor.offset);
  if (elements == 0) return;
  const auto read = [&](std::uint64_t at, std::span<std::byte> out) {
    read_little_endian(*tensor.storage, element_size, at * element_size, out);
  };
  if (tensor.contiguous()) {
    const std::uint64_t piece = kPieceBytes / element_size;
    std::vector<std::byte> buffer(std::min(piece, elements) * element_size);
    for (std::uint64_t done = 0; done < elements; done += piece) {
      const auto part = std::span(buffer).first(std::min(piece, elements - done) * element_size);
      read(first + done, part);
      visit(done, std::span<const std::byte>(part));
    }
    return;
  }
  // Strided: reads the whole span from the first to the last element, then gathers the elements.
  std::uint64_t span = 1;
  for (std::size_t i = 0; i < tensor.shape.size(); ++i)
    span += static_cast<std::uint64_t>(tensor.shape[i] - 1) * static_cast<std::uint64_t>(tensor.strides[i]);
  std::vector<std::byte> buffer(span * element_size);
  read(first, buffer);
  std::vector<std::int64_t> index(tensor.shape.size(), 0);
  for (std::uint64_t done = 0; done < elements; ++done) {
    std::uint64_t at = 0;
    for (std::size_t i = 0; i < index.size(); ++i)
      at += static_cast<std::uint64_t>(index[i]) * static_cast<std::uint64_t>(tensor.strides[i]);
    visit(done, std::span<const std::byte>(buffer).subspan(at * element_size, element_size));
    for (std::size_t i = index.size(); i-- > 0;) {
      if (++index[i] < tensor.shape[i]) break;
      index[i] = 0;
    }
  }
}

template <typename To>
void copy_elements(const TensorValue& tensor, std::span<To> out) {
  VOCA_CHECK(out.size() == static_cast<std::size_t>(tensor.elements()));
  const std::size_t element_size = size_of(tensor.dtype);
  visit_pieces(tensor, [&](std::uint64_t first, std::span<const std::byte> piece) {
    for (std::size_t i = 0; i < piece.size() / element_size; ++i)
      out[first + i] = element_as<To>(tensor.dtype, piece.data() + i * element_size);
  });
}

}  // namespace

void read_little_endian(const Storage& storage, std::size_t element_size, std::uint64_t offset,
                        std::span<std::byte> out) {
  storage.read(offset, out);
  if (storage.big_endian()) reverse_elements(out, element_size);
}

std::shared_ptr<const Storage> borrow_storage(std::span<const std::byte> bytes) {
  return std::make_shared<const Storage>(bytes.size(),
                                         [bytes](std::uint64_t offset, std::span<std::byte> out) {
                                           if (!out.empty())
                                             std::memcpy(out.data(), bytes.data() + offset, out.size());
                                         });
}

std::shared_ptr<const Storage> storage_in(std::shared_ptr<const FileReader> file, std::uint64_t offset,
                                          std::uint64_t size) {
  return std::make_shared<const Storage>(
      size, [file = std::move(file), offset](std::uint64_t at, std::span<std::byte> out) {
        file->read(offset + at, out);
      });
}

std::int64_t TensorValue::elements() const {
  std::int64_t product = 1;
  for (const std::int64_t extent : shape) product *= extent;
  return product;
}

bool TensorValue::contiguous() const {
  std::int64_t expected = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    if (shape[i] != 1 && strides[i] != expected) return elements() == 0;
    expected *= shape[i];
  }
  return true;
}

void TensorValue::copy_to(std::span<float> out) const {
  copy_elements(*this, out);
}

void TensorValue::copy_to(std::span<double> out) const {
  copy_elements(*this, out);
}

std::vector<std::byte> TensorValue::bytes() const {
  const std::size_t element_size = size_of(dtype);
  std::vector<std::byte> out(static_cast<std::size_t>(elements()) * element_size);
  visit_pieces(*this, [&](std::uint64_t first, std::span<const std::byte> piece) {
    std::memcpy(out.data() + first * element_size, piece.data(), piece.size());
  });
  return out;
}

void TensorValue::visit_bytes(const std::function<void(std::span<const std::byte>)>& visit) const {
  if (!contiguous()) return visit(bytes());
  visit_pieces(*this, [&](std::uint64_t /*first*/, std::span<const std::byte> piece) { visit(piece); });
}

TensorValue contiguous_tensor(DType dtype, std::vector<std::int64_t> shape,
                              std::shared_ptr<const Storage> storage) {
  TensorValue tensor{.dtype = dtype, .shape = std::move(shape), .strides = {}, .storage = std::move(storage)};
  tensor.strides.resize(tensor.shape.size());
  std::int64_t stride = 1;
  for (std::size_t i = tensor.shape.size(); i-- > 0;) {
    tensor.strides[i] = stride;
    stride *= std::max<std::int64_t>(tensor.shape[i], 1);
  }
  VOCA_CHECK(static_cast<std::uint64_t>(tensor.elements()) == tensor.storage->size() / size_of(dtype));
  return tensor;
}

TensorValue borrow_tensor(std::span<const float> elements, std::vector<std::int64_t> shape) {
  return contiguous_tensor(DType::kF32, std::move(shape), borrow_storage(std::as_bytes(elements)));
}

}  // namespace voca::engine
