#include "kernels/cpu/serial_gemm.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "kernels/cpu/vector.h"

// After Goto and van de Geijn (2008), "Anatomy of High-Performance Matrix Multiplication", with the roles of
// A and B exchanged: B is packed a block at a time, for the second-level cache; A a strip of rows at a time,
// for the first. A tile, a strip times a panel of columns, is added up in registers.

namespace voca::kernels::cpu {
inline namespace VOCA_CPU_LEVEL {

namespace {

constexpr std::int64_t kDepth = 384;          ///< of a block in the inner dimension; see serial_gemm()
constexpr std::int64_t kBlockBytes = 393216;  ///< of packed B: fits a second-level cache of 512 KiB

// So few are not worth packing what they are multiplied by, if it is stored by rows of the inner dimension.
constexpr std::int64_t kFewRows = 168;
constexpr std::int64_t kFewColumns = 64;

/// Width of a tile in vectors, and its largest height: its sums, one row of B and one element of A fill the
/// registers.
constexpr int kTileVectors = 2;
constexpr int kTileRows = kVectorRegisters == 32 ? 14 : 6;

template <typename T>
constexpr int kPanel = kTileVectors* kLanes<T>;  ///< columns of a panel of B

/// Columns of a block of B.
template <typename T>
constexpr std::int64_t kBlockColumns = kBlockBytes / kDepth /
                                       static_cast<std::int64_t>(sizeof(T)) / kPanel<T>* kPanel<T>;

/// What packing may overwrite beyond the packed elements.
template <typename T>
constexpr std::int64_t kSlack = kLanes<T>;

template <typename T>
std::size_t strip_bytes(const Gemm<T>& args) {
  return align_up(static_cast<std::size_t>(kTileRows * std::min(args.k, kDepth) + kSlack<T>) * sizeof(T));
}

template <typename T>
std::size_t panels_bytes(const Gemm<T>& args) {
  const std::int64_t columns = std::min(divide_up(args.n, kPanel<T>) * kPanel<T>, kBlockColumns<T>);
  return align_up(static_cast<std::size_t>(columns * std::min(args.k, kDepth) + kSlack<T>) * sizeof(T));
}

/// to[p · kWidth + i] = from[i · stride + p] for i < count, 0 for the other i < kWidth; p < depth.
template <typename T, int kWidth>
inline void pack_columns(const T* from, std::int64_t stride, std::int64_t count, std::int64_t depth, T* to) {
  // The last rows first: where a vector reaches into the next row of `to`, the first rows overwrite it.
  constexpr int kLast = (kWidth - 1) / kLanes<T> * kLanes<T>;
  const std::int64_t vectors = depth / kLanes<T> * kLanes<T>;
#pragma GCC unroll 4
  for (int group = kLast; group >= 0; group -= kLanes<T>) {
    for (std::int64_t p = 0; p < vectors; p += kLanes<T>) {
      Vector<T> rows[kLanes<T>];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes<T>; ++i)
        rows[i] = group + i < count ? load(from + (group + i) * stride + p) : Vector<T>{};
      transpose<T>(rows);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes<T>; ++i) store(to + (p + i) * kWidth + group, rows[i]);
    }
  }
  for (std::int64_t p = vectors; p < depth; ++p) {
    for (std::int64_t i = 0; i < kWidth; ++i) to[p * kWidth + i] = i < count ? from[i * stride + p] : T{};
  }
}

/// to[p · kWidth + i] = from[p · stride + i] for i < count, 0 for the other i < kWidth; p < depth.
template <typename T, int kWidth>
inline void pack_rows(const T* from, std::int64_t stride, std::int64_t count, std::int64_t depth, T* to) {
  for (std::int64_t p = 0; p < depth; ++p, from += stride, to += kWidth) {
    if (count == kWidth) {
      std::memcpy(to, from, kWidth * sizeof(T));
    } else {
      std::fill(std::copy_n(from, count, to), to + kWidth, T{});
    }
  }
}

/// A matrix in strips or panels: row p starts at data + p · stride.
template <typename T>
struct Packed {
  const T* data;
  std::int64_t stride;
};

/// How the sums of a block change C: alpha · sum + bias + beta · C.
template <typename T>
struct Update {
  T alpha;
  T beta;
  const T* bias;  ///< null: none

  /// C at `column` of the tile's row `c`; V is T or a vector of T.
  template <typename V>
  [[nodiscard]] V operator()(const V& sum, const T* c, std::int64_t column) const {
    V result = alpha * sum;
    if (bias != nullptr) result += *reinterpret_cast<const V*>(bias + column);
    if (beta != 0) result += beta * *reinterpret_cast<const V*>(c + column);
    return result;
  }
};

/// The first `width` columns of a tile's row. Not inlined: the tile's registers are taken.
template <typename T>
[[gnu::noinline]] void update_part(const Update<T>& update, const T* sums, std::int64_t width, T* c) {
  for (std::int64_t j = 0; j < width; ++j) c[j] = update(sums[j], c, j);
}

/// Updates a tile of C, of which the first `width` columns exist, with the product of a strip and the first
/// kVectors vectors of a panel.
template <typename T, int kRows, int kVectors>
[[gnu::noinline]] void tile(std::int64_t depth, Packed<T> strip, Packed<T> panel, Update<T> update,
                            std::int64_t width, T* c, std::int64_t ldc) {
  Vector<T> sums[kRows][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) sums[i][j] = Vector<T>{};
  }
  for (std::int64_t p = 0; p < depth; ++p) {
    Vector<T> b[kVectors];
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) b[j] = load(panel.data + j * kLanes<T>);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const Vector<T> a = strip.data[i] - Vector<T>{};  // in every lane
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) sums[i][j] = multiply_add<T>(a, b[j], sums[i][j]);
    }
    strip.data += strip.stride;
    panel.data += panel.stride;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i, c += ldc) {
    if (width < kVectors * kLanes<T>) {
      T row[kVectors * kLanes<T>];  // not the sums themselves, which would leave the registers
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) store(row + j * kLanes<T>, sums[i][j]);
      update_part(update, row, width, c);
      continue;
    }
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) store(c + j * kLanes<T>, update(sums[i][j], c, j * kLanes<T>));
  }
}

/// The block [first, first + depth) of the inner dimension and [column, column + columns) of C.
template <typename T>
struct Block {
  const Gemm<T>& args;
  std::int64_t first;
  std::int64_t depth;
  std::int64_t column;
  std::int64_t columns;
  T* strip;   ///< packed
  T* panels;  ///< packed

  [[nodiscard]] std::int64_t width(std::int64_t panel) const {
    return std::min<std::int64_t>(kPanel<T>, columns - panel);
  }

  /// Start of the panel at column `panel` of the block in B.
  [[nodiscard]] const T* in_b(std::int64_t panel) const {
    const std::int64_t at = column + panel;
    return args.b + (args.transpose_b == Transpose::kYes ? at * args.ldb + first : first * args.ldb + at);
  }

  /// Whether a panel is read in B.
  [[nodiscard]] bool stays(std::int64_t panel) const {
    return args.transpose_b == Transpose::kNo && width(panel) == kPanel<T> && args.m <= kFewRows;
  }

  void pack_panels() const {
    for (std::int64_t panel = 0; panel < columns; panel += kPanel<T>) {
      if (stays(panel)) continue;
      const auto pack =
          args.transpose_b == Transpose::kYes ? pack_columns<T, kPanel<T>> : pack_rows<T, kPanel<T>>;
      pack(in_b(panel), args.ldb, width(panel), depth, panels + panel * depth);
    }
  }

  [[nodiscard]] Packed<T> panel_at(std::int64_t panel) const {
    if (stays(panel)) return {in_b(panel), args.ldb};
    return {panels + panel * depth, kPanel<T>};
  }

  template <int kRows>
  [[nodiscard]] Packed<T> strip_at(std::int64_t row) const {
    if (args.transpose_a == Transpose::kNo) {
      pack_columns<T, kRows>(args.a + row * args.lda + first, args.lda, kRows, depth, strip);
    } else if (const T* const a = args.a + first * args.lda + row; columns <= kFewColumns) {
      return {a, args.lda};
    } else {
      pack_rows<T, kRows>(a, args.lda, kRows, depth, strip);
    }
    return {strip, kRows};
  }
};

/// Updates `kRows` rows of a block of C.
template <typename T, int kRows>
void update_strip(const Block<T>& block, std::int64_t row) {
  const Gemm<T>& args = block.args;
  const Packed<T> strip = block.template strip_at<kRows>(row);
  const bool is_first = block.first == 0;
  for (std::int64_t panel = 0; panel < block.columns; panel += kPanel<T>) {
    const std::int64_t column = block.column + panel;
    const Update<T> update{static_cast<T>(args.alpha), is_first ? static_cast<T>(args.beta) : T{1},
                           is_first && args.add_bias ? args.bias + column : nullptr};
    const std::int64_t width = block.width(panel);
    const auto update_tile = width > kLanes<T> ? tile<T, kRows, 2> : tile<T, kRows, 1>;
    update_tile(block.depth, strip, block.panel_at(panel), update, width, args.c + row * args.ldc + column,
                args.ldc);
  }
}

/// update_strip() by height less one.
template <typename T, int... kRow>
constexpr auto update_strips(std::integer_sequence<int, kRow...> /*rows*/) {
  return std::array{&update_strip<T, kRow + 1>...};
}

}  // namespace

template <typename T>
std::size_t serial_gemm_bytes(const Gemm<T>& args) {
  return strip_bytes(args) + panels_bytes(args);
}

template <typename T>
void serial_gemm(const Gemm<T>& args, void* scratch) {
  static constexpr auto kUpdateStrips = update_strips<T>(std::make_integer_sequence<int, kTileRows>{});
  auto* const strip = static_cast<T*>(scratch);
  auto* const panels = reinterpret_cast<T*>(static_cast<std::byte*>(scratch) + strip_bytes(args));
  const std::int64_t strips = divide_up(args.m, kTileRows);
  for (std::int64_t column = 0; column < args.n; column += kBlockColumns<T>) {
    // Once even if there is nothing to add up.
    for (std::int64_t first = 0; first == 0 || first < args.k; first += kDepth) {
      const Block<T> block{
          args,  first, std::min(kDepth, args.k - first), column, std::min(kBlockColumns<T>, args.n - column),
          strip, panels};
      block.pack_panels();
      for (std::int64_t i = 0; i < strips; ++i) {
        const std::int64_t row = i * args.m / strips;  // strips of equal height, or one row less
        const std::int64_t rows = (i + 1) * args.m / strips - row;
        kUpdateStrips[static_cast<std::size_t>(rows - 1)](block, row);
      }
    }
  }
}

#define VOCA_INSTANTIATE(T)                               \
  template std::size_t serial_gemm_bytes(const Gemm<T>&); \
  template void serial_gemm(const Gemm<T>&, void*);
VOCA_CPU_TYPES(VOCA_INSTANTIATE)

}  // namespace VOCA_CPU_LEVEL
}  // namespace voca::kernels::cpu
