#pragma once

#include <array>

#include "engine/core/dtype.h"

namespace voca::engine {

/// Names of PyTorch's typed storages, in module torch.
inline constexpr auto kStorageTypes = std::to_array<Named<DType>>({{"DoubleStorage", DType::kF64},
                                                                   {"FloatStorage", DType::kF32},
                                                                   {"HalfStorage", DType::kF16},
                                                                   {"BFloat16Storage", DType::kBF16},
                                                                   {"LongStorage", DType::kI64},
                                                                   {"IntStorage", DType::kI32},
                                                                   {"ShortStorage", DType::kI16},
                                                                   {"CharStorage", DType::kI8},
                                                                   {"ByteStorage", DType::kU8},
                                                                   {"BoolStorage", DType::kBool}});
static_assert(kStorageTypes.size() == kNames<DType>.size());

}  // namespace voca::engine
